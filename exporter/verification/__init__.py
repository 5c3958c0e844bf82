"""Compare a pruned, converted or quantized model with its original."""

from __future__ import annotations

from exporter.verification.roles import Stage
from exporter.verification.verify import Verification, VerifyOptions, verify_pair

__all__ = ["Stage", "Verification", "VerifyOptions", "verify_pair"]
