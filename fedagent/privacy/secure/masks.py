"""What masks are made of: primitives of cryptography's and pycryptodome's, and none of our own.

X25519 (RFC 7748) agrees on keys and HKDF-SHA256 (RFC 5869) derives them; AES-256 in counter mode
makes masks of them, and in Galois counter mode seals shares; Shamir's scheme over GF(2^128) splits
seeds. What is random is the operating system's, in simulations too: no sum depends on it.
"""

import secrets
from collections.abc import Mapping
from functools import partial

import numpy as np
from Crypto.Protocol.SecretSharing import Shamir
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedagent.arrays import NDArray

SEED_BYTES = 16
"""Of a seed, and of a share of one: 128 bits, the strength of X25519."""
KEY_BYTES = 32
"""Of a public key, an agreed key and a commitment."""
_NONCE_BYTES, _TAG_BYTES = 12, 16
SEALED_BYTES = _NONCE_BYTES + 2 * SEED_BYTES + _TAG_BYTES
"""Of two sealed shares."""

fresh_seed = partial(secrets.token_bytes, SEED_BYTES)


def derived(secret: bytes, purpose: bytes) -> bytes:
    """Return the 32 bytes that HKDF derives from a secret for one purpose."""
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=b"fedagent " + purpose).derive(secret)


def private_key(seed: bytes) -> X25519PrivateKey:
    """Return the X25519 key that a seed stands for."""
    return X25519PrivateKey.from_private_bytes(derived(seed, b"private key"))


def public_key(seed: bytes) -> bytes:
    """Return the 32 bytes of the public half of a seed's key."""
    return private_key(seed).public_key().public_bytes_raw()


def agreed(seed: bytes, public: bytes, purpose: bytes) -> bytes:
    """Return the 32 bytes on which the owners of two keys agree, for one purpose.

    Raises
    ------
    ValueError
        If `public` is no key that anything can be agreed with.
    """
    key = X25519PublicKey.from_public_bytes(public)
    return derived(private_key(seed).exchange(key), purpose)


def is_public_key(data: bytes) -> bool:
    """Whether anything can be agreed with the owner of a public key of 32 bytes."""
    try:
        agreed(bytes(SEED_BYTES), data, b"trial")
    except ValueError:
        return False
    return True


def commitment(seed: bytes) -> bytes:
    """Return the 32 bytes that bind to a seed and do not tell it."""
    return derived(seed, b"commitment")


def mask(key: bytes, num_words: int) -> NDArray:
    """Return the (num_words,) uint32 that a key of 32 bytes stands for; a key makes one mask."""
    cipher = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    return np.frombuffer(cipher.update(bytes(4 * num_words)), "<u4").astype(np.uint32, copy=False)


def seal(key: bytes, shares: bytes) -> bytes:
    """Return two shares, encrypted and authenticated."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, shares, None)


def unsealed(key: bytes, sealed: bytes) -> bytes | None:
    """Return what `seal` was given; None if it was sealed with another key, or changed."""
    try:
        return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], None)
    except InvalidTag:
        return None


def split(seed: bytes, threshold: int, number: int) -> list[bytes]:
    """Return so many shares of a seed, of which `threshold` tell it and fewer tell nothing."""
    return [share for _, share in Shamir.split(threshold, number, seed, ssss=False)]


def joined(shares: Mapping[int, bytes]) -> bytes:
    """Return the seed that `threshold` shares tell, by their places in what `split` returned."""
    return Shamir.combine([(place + 1, share) for place, share in shares.items()], ssss=False)
