"""The command `luce`: thin verbs over the library."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from cyclopts import App, CycloptsError

from luce import __version__
from luce.cli import attack, check, compare, evaluate, plot, predict, show, softmax, train, verify
from luce.cli.console import STDIN
from luce.cli.interrupt import listening
from luce.errors import DataError, ImageError, LuceError, ModelError

EXAMPLES = (
    ("luce train photos -o pets.onnx", "a folder with one folder of pictures per class"),
    ("luce predict pets.onnx new/*.jpg", "the classes of new pictures"),
    ("luce evaluate pets.onnx test-photos", "how good it is on pictures with known classes"),
)
_STATUS = "Exit status: 0 done, 1 failed, 2 the command or its data is wrong, 130 interrupted."


def _epilogue(examples: Sequence[tuple[str, str]]) -> str:
    """Examples as a Markdown list."""
    return "\n".join(["Examples:", "", *(f"- `{command}`  \n  {meaning}" for command, meaning in examples)])


app = App(
    name="luce",
    version=f"luce {__version__}",
    help="From pictures to class probabilities you can trust.",
    help_format="markdown",
    suppress_keyboard_interrupt=False,  # `main` answers it
    help_epilogue=f"{_epilogue(EXAMPLES)}\n\n`luce COMMAND --help` explains each. {_STATUS}",
)
app.command(train.train, help_epilogue=_epilogue(train.EXAMPLES))
app.command(predict.predict, help_epilogue=_epilogue(predict.EXAMPLES))
app.command(evaluate.evaluate, help_epilogue=_epilogue(evaluate.EXAMPLES))
app.command(verify.verify, help_epilogue=_epilogue(verify.EXAMPLES))
app.command(check.check, help_epilogue=_epilogue(check.EXAMPLES))
app.command(compare.compare, help_epilogue=_epilogue(compare.EXAMPLES))
app.command(attack.attack, help_epilogue=_epilogue(attack.EXAMPLES))
app.command(show.show, help_epilogue=_epilogue(show.EXAMPLES))
app.command(plot.plot, help_epilogue=f"{plot.pictures()}\n\n{_epilogue(plot.EXAMPLES)}")
app.command(softmax.softmax, help_epilogue=_epilogue(softmax.EXAMPLES))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the words after `luce`; `sys.argv` without.

    Returns:
        Exit status: 0 done; 1 failed; 2 the command or its data is wrong; 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):  # a file name that is no text here is shown with escapes
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    words = [STDIN if word == "-" else word for word in (sys.argv[1:] if argv is None else argv)]
    try:
        with listening():
            result = app(words, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except CycloptsError as error:
        return _fail(f"{error} `luce --help` lists what there is.", 2)
    except (DataError, ImageError, ModelError, ValueError) as error:
        return _fail(str(error), 2)
    except LuceError as error:
        return _fail(str(error), 1)
    except KeyboardInterrupt:
        return _fail("stopped; nothing was half-written", 130)
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _fail(f"{error.filename or ''}: {error.strerror or error}".lstrip(": "), 1)
    except MemoryError:
        return _fail("not enough memory", 1)
    except Exception as error:  # whatever is left is our fault, and a person is told so without a traceback
        if os.environ.get("LUCE_DEBUG"):
            raise
        return _fail(f"{type(error).__name__}: {error}. This is a bug in Luce; LUCE_DEBUG=1 shows where", 1)


def _fail(message: str, status: int) -> int:
    print(f"luce: {message}", file=sys.stderr)
    return status
