"""Where compiled kernels are kept, so that only the first start of a release has to compile them.

Numba's own cache falls short in three ways, which are made good here before Numba is imported: it does not notice a
change in a function that a cached one calls, it must be able to write to its folder, and what one processor has
compiled is of no use to another model of processor. docs/decisions/0012-kernel-cache.md
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import MutableMapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

CACHE = "NUMBA_CACHE_DIR"
SEED = "METISFL_KERNEL_SEED"

BASELINE = "x86-64-v3"
"""What kernels are compiled for where the processor has it, as nearly all since 2013 do. The kernels wait for memory:
with AVX-512 they are no faster."""

_FEATURES = {
    "avx": "avx",
    "avx2": "avx2",
    "bmi1": "bmi",
    "bmi2": "bmi2",
    "cx16": "cx16",
    "f16c": "f16c",
    "fma": "fma",
    "abm": "lzcnt",
    "movbe": "movbe",
    "popcnt": "popcnt",
    "sse4_1": "sse4.1",
    "sse4_2": "sse4.2",
    "ssse3": "ssse3",
}
"""The baseline's features by the names that Linux and LLVM have for them."""

UNUSED_SECONDS = 30 * 86400.0
"""So long after the last start with them, the kernels of other releases are removed."""

_SOURCES = Path(__file__).parent / "aggregation" / "kernels"
_RELEASE = re.compile(r"[0-9a-f]{16}")


def prepare(environment: MutableMapping[str, str], processor: Path = Path("/proc/cpuinfo")) -> Path:
    """Choose the folder of this release's kernels below NUMBA_CACHE_DIR, by default one in the temporary directory, and
    the processor they are compiled for; write both to the environment, where Numba looks for them.

    A folder that is not there yet starts as a copy of that in METISFL_KERNEL_SEED, if there is one. Those of other
    releases go when nobody has started with them for UNUSED_SECONDS. Raises OSError.
    """
    release = _release()
    base = Path(environment.get(CACHE) or Path(tempfile.gettempdir()) / f"metisfl-kernels-{os.getuid()}")
    # A child process inherits what its parent has chosen.
    folder = base if base.name == release else base / release
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        seed = environment.get(SEED)
        if seed and (Path(seed) / release).is_dir():
            _copy(Path(seed) / release, folder)
    folder.mkdir(exist_ok=True)
    _remove_unused(folder)
    environment[CACHE] = str(folder)
    if "NUMBA_CPU_NAME" not in environment and _has_baseline(processor):
        environment["NUMBA_CPU_NAME"] = BASELINE
        environment["NUMBA_CPU_FEATURES"] = ",".join(f"+{feature}" for feature in sorted(_FEATURES.values()))
    return folder


def _release() -> str:
    """Names what decides whether compiled kernels are still right: their sources, and the compiler."""
    digest = hashlib.sha256(f"numba {version('numba')} llvmlite {version('llvmlite')}".encode())
    for source in sorted(_SOURCES.glob("*.py")):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()[:16]


def _copy(seed: Path, folder: Path) -> None:
    """All of it or nothing, also when two processes start at once."""
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        copy = shutil.copytree(seed, unfinished / seed.name)
        copy.chmod(0o700)
        copy.rename(folder)
    except OSError:
        # Somebody else was first.
        if not folder.exists():
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _remove_unused(folder: Path) -> None:
    """Mark this folder as used now, and remove its outdated neighbours. Another controller may share them: one that
    runs has its kernels in memory, and Numba makes its folder again if it has more to keep."""
    with suppress(OSError):
        os.utime(folder)
        since = time.time() - UNUSED_SECONDS
        for other in folder.parent.iterdir():
            if _RELEASE.fullmatch(other.name) and other != folder and other.stat().st_mtime < since:
                shutil.rmtree(other, ignore_errors=True)


def _has_baseline(processor: Path) -> bool:
    try:
        lines = processor.read_text().splitlines()
    except OSError:
        return False
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return set(flags) >= set(_FEATURES)


def _compile() -> None:
    """`python -m metisfl_controller.kernel_cache`: fill the cache, as the image is built."""
    prepare(os.environ)
    # After the environment is ready for Numba.
    from metisfl_controller.aggregation.kernels import norms, products, ranks, runtime, steps

    runtime.configure(2, (norms, products, ranks, steps))


if __name__ == "__main__":
    _compile()
