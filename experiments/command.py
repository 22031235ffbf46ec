"""What every command shares: flags, one clear sentence for a user's mistake, exit codes."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable

from absl import flags
from ml_collections import ConfigDict, config_flags

from flown_jax.errors import UserError

_EXIT = 2


def run(
    module: str, doc: str, config_file: str, function: Callable[[ConfigDict, str | None], None]
) -> None:
    """Parse the command line, call `function(config, workdir)`, exit.

    Args:
      module: the command, as behind `python -m`.
      doc: what it does; shown by --help.
      config_file: the default of --config.
      function: the work; a `UserError` of it becomes one sentence and exit status 2.
    """
    values = flags.FlagValues()
    config_flags.DEFINE_config_file(
        "config",
        config_file,
        "Configuration file, with :VARIANT behind it if wanted; single fields are set by "
        "--config.FIELD=VALUE.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "workdir",
        None,
        "Folder of the run's results; a second call with the same folder goes on where the first "
        "one ended. By default a folder under workdirs/ named after variant and seed.",
        flag_values=values,
    )
    flags.DEFINE_bool("help", False, "Show this text.", short_name="h", flag_values=values)
    try:
        rest = values(sys.argv)
        if values["help"].value:
            print(f"{doc.strip()}\n\nusage: python -m {module} [--config=FILE[:VARIANT]] ...\n")
            print(values.main_module_help() or _own_help(values))
            return
        if len(rest) > 1:
            raise UserError(f"{module} takes no argument {rest[1]!r}; see --help.")
        function(values["config"].value, values["workdir"].value)
    except KeyboardInterrupt:
        _stop("stopped; the same command goes on from here.")
    except flags.Error as error:
        _stop(_first_line(error))
    except (AttributeError, KeyError, TypeError, FileNotFoundError) as error:
        # config_flags reports a misspelt field and a missing file by these; anything that comes
        # out of the work itself is a fault of ours and keeps its traceback.
        if not _from_flags(error):
            raise
        _stop(_field_sentence(error))
    except UserError as error:
        _stop(str(error))
    except ValueError as error:
        if not _from_flags(error):
            raise
        _stop(_first_line(error))


def _own_help(values: flags.FlagValues) -> str:
    lines = []
    for name in ("config", "workdir", "help"):
        lines.append(f"  --{name}: {values[name].help}")
    return "\n".join(lines)


def _from_flags(error: BaseException) -> bool:
    """Whether an error was raised while the command line was parsed."""
    traceback = error.__traceback__
    while traceback is not None:
        if pathlib.Path(traceback.tb_frame.f_code.co_filename).name == "config_flags.py":
            return True
        traceback = traceback.tb_next
    return False


def _field_sentence(error: BaseException) -> str:
    text = _first_line(error)
    return f"the command line does not fit the configuration: {text}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).strip().strip("'\"").splitlines() if line.strip()]
    return " ".join(lines) if lines else type(error).__name__


def _stop(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr)
    raise SystemExit(_EXIT)
