"""All fuzzers, by name."""

import fuzz_blocks
import fuzz_config
import fuzz_http
import fuzz_wire

MODULES = (fuzz_wire, fuzz_blocks, fuzz_http, fuzz_config)
TARGETS = {target.name: target for module in MODULES for target in module.TARGETS}
