"""What every command shares: the command line, one sentence for a user's mistake, exit codes."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import functools
import importlib.util
import os
import pathlib
import re
import select
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from absl import flags
from ml_collections import ConfigDict, config_flags

import flown_jax
from experiments import compiled, interrupts, processes
from flown_jax.errors import Stopped, UserError

PROGRAM = "flown"  # the installed program, whose first argument names a command
_CONFIGS = pathlib.Path(__file__).parents[1] / "configs"
_EXIT = 2
_FLAGS = ("config", "workdir", "try_steps", compiled.FLAG, *processes.FLAGS, "help")
_OVERRIDE = re.compile(r"--?(?:no)?config\.([^=]*)(?:=|$)")
_TYPES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def run(
    module: str,
    doc: str,
    config_file: str,
    function: Callable[..., None],
    own: Mapping[str, str] | None = None,
) -> None:
    """Parse the command line, call `function(config, workdir)`, exit.

    Args:
      module: the command, as behind `python -m`.
      doc: what it does; shown by --help.
      config_file: the default of --config.
      function: the work; a `UserError` of it becomes one sentence and exit status 2.
      own: flags of this command alone and what they are for, texts; those that are given are
        arguments of the function, by name.
    """
    own = own or {}
    with one_sentence():
        values = _own_flags(config_file, own)
        rest = _parsed(values, sys.argv, known_only=True)
        if values["help"].value:
            print(_help(module, doc, values, own))
            return
        if given := {name: values[name].value for name in own if values[name].value is not None}:
            function = functools.partial(function, **given)
        processes.join(values)
        config, steps = load_config(str(values["config"].value)), values["try_steps"].value
        if steps is not None:
            compiled.keep("none")  # seconds of compilation are told
            _run_cut(module, config, rest[1:], function, values["workdir"].value, steps)
            return
        override(config, rest[1:], module)
        compiled.keep(values[compiled.FLAG].value)
        _say_what_to_expect(module, config)
        function(config, _workdir(values["workdir"].value))


def _run_cut(
    module: str,
    config: ConfigDict,
    arguments: Sequence[str],
    function: Callable[[ConfigDict, str | None], None],
    workdir: str | None,
    steps: int,
) -> None:
    from experiments import trial  # which reads the fields of configs by this module

    cuts = trial.cut(config, steps)
    override(config, arguments, module)
    trial.run(function, config, _workdir(workdir) or trial.folder(module, config), steps, cuts)


def _say_what_to_expect(module: str, config: ConfigDict) -> None:
    from experiments import expected  # which knows JAX; a command line is read without it

    print(expected.sentence(module, config.get("variant")), flush=True)


def _workdir(text: str | None) -> str | None:
    if text == "":
        raise UserError("--workdir needs the name of a folder.")
    return text


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """A context in which a user's mistake or Ctrl-C ends the program with one sentence.

    A mistake is a `UserError`, a ValueError that the library itself raises about a value it was
    given, or what the system says of a file; an error from anywhere else is a fault of ours and
    keeps its traceback. Where the reader of the output has gone (`flown | head -n 1`) the program
    ends without a word, as others do.
    """
    try:
        with interrupts.unwinding():
            try:
                yield
            except SystemExit:  # behind the help of a command line of arguments
                sys.stdout.flush()
                raise
            sys.stdout.flush()  # here and not in the interpreter's shutdown, which tells of it
    except BrokenPipeError:
        if not _reader_gone():
            raise
        interrupts.leave(interrupts.PIPE)
    except Stopped:  # of another process that got the signal, or of a program
        _stop(interrupts.SENTENCE, interrupts.TERMINATED)
    except KeyboardInterrupt:  # of a program that calls a command
        _stop(interrupts.SENTENCE, interrupts.INTERRUPTED)
    except UserError as error:
        _stop(_one_line(error), _EXIT)
    except ValueError as error:
        if not _raised_by_library(error):
            raise
        _stop(_one_line(error), _EXIT)
    except RuntimeError as error:
        if not processes.lost(error):
            raise
        _stop(processes.LOST, processes.STATUS)
    except OSError as error:
        if error.filename is None:
            raise
        _stop(f"cannot use {error.filename!s:.200}: {error.strerror}.", _EXIT)


def _reader_gone() -> bool:
    """Whether what reads the output of this program has ended, as `head` does."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
    except (AttributeError, ValueError, OSError):  # another system; no file, or a closed one
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _raised_by_library(error: BaseException) -> bool:
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    package = pathlib.Path(flown_jax.__file__).parent
    return package in pathlib.Path(frames[-1].f_code.co_filename).parents


class Parser(argparse.ArgumentParser):
    """A command line of arguments, for a command without a configuration.

    Args:
      module: the command, as behind `python -m`. doc: what it does; shown by --help.
    """

    def __init__(self, module: str, doc: str | None) -> None:
        super().__init__(
            prog=called(module),
            description=_as_called(doc or ""),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see --help.")


def config_file(name: str) -> str:
    """The default configuration file of a command, as its --config takes it."""
    others = {"fewshot": "fsl", "train_zoo": "zoo", "train_trajectory": "trajectory"}
    return f"configs/{others.get(name, name)}.py"


def called(module: str) -> str:
    """How the command `module` is called here: by the installed program, or as a module."""
    name = module.removeprefix("experiments.")
    return (
        f"{PROGRAM} {name}" if os.path.basename(sys.argv[0]) == PROGRAM else f"python -m {module}"
    )


def _as_called(doc: str) -> str:
    """A text with its example lines as commands are called here."""
    return doc.replace("python -m experiments.", called("experiments."))


def load_config(text: str) -> ConfigDict:
    """The configuration of FILE or FILE:VARIANT.

    Where no such file is, `NAME.py` and `configs/NAME.py` are those that come with the commands.

    Raises:
      UserError: no such file, no configuration in it, or no such variant.
    """
    name, _, variant = text.partition(":")
    path = pathlib.Path(name)
    if not os.path.isfile(path) and name in (path.name, f"configs/{path.name}"):
        path = _CONFIGS / path.name
    if not os.path.isfile(path):  # a Path refuses long names otherwise
        raise UserError(f"there is no configuration file {name!r}.")
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{name} is no configuration file: it must be Python with get_config.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise UserError(f"{name} is no configuration file: it has no function get_config.")
        config = module.get_config(*([variant] if variant else []))
    except SyntaxError as error:
        raise UserError(f"{name}, line {error.lineno}, is no Python: {error.msg}.") from error
    except ValueError as error:
        raise UserError(str(error)) from error
    except Exception as error:  # whatever a file of the user's may do
        raise UserError(f"{name} fails: {type(error).__name__}: {error}.") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"{name}: get_config must give a ConfigDict, not {type(config).__name__}.")
    return config


def override(config: ConfigDict, arguments: Sequence[str], module: str) -> None:
    """Set the fields of a configuration that --config.FIELD=VALUE arguments name.

    Raises:
      UserError: no such field (the nearest is named), a value of another type, any other argument.
    """
    defaults = dict(fields_of(config))
    for argument in arguments:
        if (found := _OVERRIDE.match(argument)) is not None:
            _check_field(found.group(1), defaults)
    values = flags.FlagValues()
    config_flags.DEFINE_config_dict(
        "config", config, flag_values=values, sys_argv=[module, *arguments]
    )
    rest = _parsed(values, [module, *arguments], defaults=defaults)
    if len(rest) > 1:
        raise UserError(f"{module} takes no argument {rest[1]!r}; see --help.")
    for field, value in fields_of(config):
        if isinstance(value, tuple) and defaults[field]:
            _check_entries(field, value, defaults[field])


def _own_flags(config_file: str, own: Mapping[str, str]) -> flags.FlagValues:
    values = flags.FlagValues()
    for name, text in own.items():
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_string(
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
    flags.DEFINE_integer(
        "try_steps",
        None,
        "Cut the configuration to so many steps a stage, an epoch where epochs are counted, and to "
        "few tasks, networks, samples and test images, but no width and no batch; print seconds a "
        "step and memory of each stage at the end. Fields given by --config.FIELD=VALUE are not "
        "cut. The folder's name then ends in -tryN by default.",
        flag_values=values,
        lower_bound=1,
        upper_bound=2**31 - 1,
    )
    compiled.define(values)
    processes.define(values)
    flags.DEFINE_bool("help", False, "Show this text.", short_name="h", flag_values=values)
    return values


def _parsed(
    values: flags.FlagValues,
    argv: Sequence[str],
    *,
    known_only: bool = False,
    defaults: dict[str, Any] | None = None,
) -> list[str]:
    """The arguments that are no flags of these."""
    values.set_gnu_getopt(True)
    try:
        return values(list(argv), known_only=known_only)
    except flags.IllegalFlagValueError as error:
        if tried := re.match(r"flag --try_steps=(.*?): ", str(error), re.DOTALL):
            raise UserError(
                f"--try_steps={tried[1]}: a whole number from 1 is wanted, like 2."
            ) from error
        found = re.match(r"flag --config\.([^=]*)=(.*?): ", str(error), re.DOTALL)
        if found is None or defaults is None:
            raise UserError(_one_line(error)) from error
        field, value = found.groups()
        wanted = _TYPES.get(type(defaults[field]), f"a {type(defaults[field]).__name__}")
        raise UserError(
            f"--config.{field}={value}: {wanted} is wanted, like {defaults[field]}."
        ) from error
    except flags.UnrecognizedFlagError as error:
        nearest = difflib.get_close_matches(error.flagname, _FLAGS, 1, 0.0)
        raise UserError(
            f"there is no flag --{error.flagname}; the nearest is --{nearest[0]}."
        ) from error
    except flags.Error as error:
        raise UserError(_one_line(error)) from error


def _check_field(field: str, defaults: dict[str, Any]) -> None:
    if field in defaults:
        return
    if any(known.startswith(f"{field}.") for known in defaults):
        raise UserError(
            f"config.{field} is a group of fields; set one of them by --config.{field}.NAME=VALUE."
        )
    nearest = difflib.get_close_matches(field, defaults, n=1, cutoff=0.0)[0]
    raise UserError(f"there is no field config.{field}; the nearest is config.{nearest}.")


def _check_entries(field: str, value: tuple, default: tuple) -> None:
    """Entries of a tuple have the type of the default's; a whole number is a number, too."""
    wanted = type(default[0])
    allowed = (int, float) if wanted is float else (wanted,)
    # True is a whole number to Python, and not to a reader.
    if not all(
        isinstance(entry, allowed) and isinstance(entry, bool) == (wanted is bool)
        for entry in value
    ):
        raise UserError(
            f"--config.{field}={value}: entries must be {_TYPES.get(wanted, wanted.__name__)}, "
            f"like {default}."
        )


def fields_of(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field below the groups, by its dotted name."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from fields_of(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _help(module: str, doc: str, values: flags.FlagValues, own: Mapping[str, str]) -> str:
    usage = f"usage: {called(module)} [--config=FILE[:VARIANT]] [--config.FIELD=VALUE ...] "
    lines = [f"  --{name}: {values[name].help}" for name in (*_FLAGS, *own)]
    usage += "[--workdir=FOLDER] [--try_steps=N] [--distributed]"
    return "\n".join([_as_called(doc.strip()), "", usage, "", *lines])


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _stop(sentence: str, status: int) -> NoReturn:
    print(f"error: {sentence}", file=sys.stderr)
    interrupts.leave(status)
