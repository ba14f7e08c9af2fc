import pytest
import torch

from clients.language.model import GRU, Transformer
from fedagent.errors import ConfigurationError

SIZE = 98
BUILDS = {
    "gru": lambda: GRU(SIZE, 16),
    "gru with tables": lambda: GRU(SIZE, 16, rows=64),
    "transformer": lambda: Transformer(SIZE, 16, window=12),
    "transformer with tables": lambda: Transformer(SIZE, 16, rows=64, window=12),
}


@pytest.mark.parametrize("name", BUILDS)
def test_what_follows_is_told_from_what_came_before_alone(name):
    torch.manual_seed(1)
    model = BUILDS[name]().eval()
    text = torch.randint(SIZE, (3, 12))
    other = text.clone()
    other[:, 7:] = torch.randint(SIZE, (3, 5))
    with torch.no_grad():
        told, again = model(text), model(other)
    assert told.shape == (3, 12, SIZE)
    assert torch.allclose(told[:, :7], again[:, :7], atol=1e-6)
    assert not torch.allclose(told[:, 7:], again[:, 7:], atol=1e-3)


def test_the_tables_tell_the_last_two_to_four_characters_apart():
    model = GRU(SIZE, 8, rows=4096)
    seen = {}
    for number, table in enumerate(model.embedding.several):
        table.register_forward_pre_hook(lambda _, rows, n=number: seen.__setitem__(n, rows[0]))
    text = torch.randint(SIZE, (1, 400))
    text[0, 200:210] = text[0, 100:110]
    model(text)
    for number, length in enumerate((2, 3, 4)):
        rows = seen[number][0]
        assert torch.equal(rows[200 + length - 1 : 210], rows[100 + length - 1 : 110])
        assert rows[200] != rows[100]
        assert len(rows.unique()) > 250  # of 400: chance collisions, no systematic ones


def test_a_table_shares_its_rows_evenly():
    model = GRU(SIZE, 8, rows=64)
    seen = []
    model.embedding.several[2].register_forward_pre_hook(lambda _, rows: seen.append(rows[0]))
    model(torch.randint(SIZE, (8, 800)))
    counts = torch.bincount(seen[0].flatten(), minlength=64)
    assert len(counts) == 64
    assert counts.min() > 50
    assert counts.max() < 150


def test_a_fresh_table_says_nothing():
    torch.manual_seed(1)
    model, text = GRU(SIZE, 8, rows=64), torch.randint(SIZE, (2, 30))
    assert torch.equal(model.embedding(text), model.embedding.one(text))


def test_heads_must_divide_the_width():
    with pytest.raises(ConfigurationError, match="hidden=18 must be a multiple of num_heads=4"):
        Transformer(SIZE, 18)
