"""Compiled programs, kept from one command to the next: most of a short run is compilation.

They lie in the user's cache folder, in one folder for each version of JAX and kind of processor,
since a program for one processor may not run on another that shares the home directory. What was
not read or written for a month is removed, and the oldest beyond two GiB. Where
JAX_COMPILATION_CACHE_DIR names a folder, JAX keeps them there and nothing is removed.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import platform
import time

from absl import flags

from flown_jax.errors import UserError

FLAG = "compilation_cache"
_NONE = "none"
_DAYS = 30
_BYTES = 2 * 1024**3


def define(values: flags.FlagValues) -> None:
    """The flag of a command."""
    flags.DEFINE_string(
        FLAG,
        None,
        "Folder where compiled programs are kept for the next run; none keeps none. By default a "
        "folder of the user's cache, or what JAX_COMPILATION_CACHE_DIR says. With --try_steps, "
        "which tells seconds of compilation, none is kept.",
        flag_values=values,
    )


def keep(given: str | None = None) -> str | None:
    """Have JAX keep compiled programs, before it compiles any.

    Args:
      given: the flag's value.

    Returns:
      The folder; None where none is kept, as where the user's cache folder cannot be written.
    Raises:
      UserError: the folder that the flag names cannot be written.
    """
    import jax

    set_before = getattr(jax.config, "jax_compilation_cache_dir", None)
    folder = str(set_before or "") if given is None else given
    if given is None and not folder:
        folder = str(default_folder())
        _clear(pathlib.Path(folder))
    writable = folder != _NONE and _writable(folder)
    if given not in (None, _NONE) and not writable:
        raise UserError(f"--{FLAG}={given}: such a folder cannot be made or written.")
    if not writable:
        jax.config.update("jax_compilation_cache_dir", None)
        return None
    jax.config.update("jax_compilation_cache_dir", folder)
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        # JAX's own second leaves out nearly all of a small job, which is hundreds of programs.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return folder


def default_folder() -> pathlib.Path:
    """Where they are kept if nothing else is said."""
    import jaxlib

    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    processor = hashlib.sha256(_processor().encode()).hexdigest()[:8]
    return pathlib.Path(home) / "flown_jax" / f"compiled-{jaxlib.__version__}-{processor}"


def _processor() -> str:
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    known = ("model name", "flags", "Features", "CPU part")
    told = sorted({line for line in lines if line.startswith(known)})
    return "\n".join([platform.machine(), platform.processor(), *told])


def _writable(folder: str) -> bool:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK | os.X_OK)


def _clear(folder: pathlib.Path) -> None:
    """Remove what is old; other processes may read, write and remove meanwhile."""
    found = []
    try:
        for entry in os.scandir(folder):
            facts = entry.stat()
            found.append((max(facts.st_atime, facts.st_mtime), facts.st_size, entry.path))
    except OSError:
        return
    left, oldest = sum(size for _, size, _ in found), time.time() - _DAYS * 86_400
    for last, size, path in sorted(found):
        if last > oldest and left <= _BYTES:
            break
        left -= size
        try:
            os.remove(path)
        except OSError:
            return
