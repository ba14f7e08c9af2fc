"""What a real fleet needs beyond Flower's defaults: certificates, keys and a check-up."""

from fedagent.deployment.certificates import make_certificates, make_node_keys

__all__ = ["make_certificates", "make_node_keys"]
