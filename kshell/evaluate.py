"""Values of expressions: 64-bit arithmetic over whatever supplies symbols, variables and memory.

Reference: mdb-language.md section 4, error texts section 15. All values are unsigned 64-bit integers and wrap;
``%`` and ``#`` divide as signed ones. Shifts by 64 or more give 0 (mdb leaves them to the host).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, Protocol

from kshell.errors import EvaluateError, Fault, KshellError
from kshell.lang import ast
from kshell.lang.numbers import char_value, number_value

MASK = 2**64 - 1
SIGN = 2**63

_WIDTHS = {"c": 1, "s": 2, "i": 4, "l": 8, "1": 1, "2": 2, "4": 4, "8": 8}
_SPACES = {"*": "virtual", "%": "object"}


class Environment(Protocol):
    """What expressions are evaluated in."""

    @property
    def radix(self) -> int:
        """The default radix, 2 to 16."""

    @property
    def dot(self) -> int: ...

    @property
    def increment(self) -> int:
        """Bytes that the last formatting command moved over; may be negative."""

    @property
    def last_address(self) -> int:
        """The address with which the last dcmd was invoked."""

    @property
    def byteorder(self) -> Literal["little", "big"]: ...

    @property
    def pointer_size(self) -> int: ...

    def symbol(self, name: str, object: str | None) -> int | None:
        """Return a symbol's value; None if it is not known.

        :raises KshellError: *object* is not known
        """

    def variable(self, name: str) -> int:
        """Return a variable's value.

        :raises KeyError: it is not defined; its arguments are the name and names that are near
        """

    def read(self, address: int, size: int, space: str) -> bytes:
        """Return *size* bytes of *space* ("virtual", "physical" or "object").

        :raises KshellError: they are not all there
        """


#: Returns names that look like one that is not known, best first.
Suggest = Callable[[str], Sequence[str]]


def evaluate(expression: ast.Expression, env: Environment, suggest: Suggest | None = None) -> int:
    """Return the value of *expression*, ``0 <= value < 2**64``.

    :param suggest: asked for names near an unknown symbol, for the message
    :raises EvaluateError: it has none; carries the place of the operand or operator at fault
    """
    values: list[int] = []
    for node in _postfix(expression):
        match node:
            case ast.Binary():
                right, left = values.pop(), values.pop()
                values.append(_binary(node, left, right))
            case ast.Unary():
                values.append(_unary(node.op, values.pop()))
            case ast.Deref():
                values.append(_dereference(node, values.pop(), env))
            case _:
                values.append(_operand(node, env, suggest))
    return values[0]


def signed(value: int) -> int:
    """Return a 64-bit value as a signed number."""
    return value - 2 * SIGN if value & SIGN else value


def reason_text(error: KshellError) -> str:
    """Return why memory could not be had, without the address that the message around it names."""
    if isinstance(error, Fault):
        return f"{error.reason.value} ({error.detail})" if error.detail else error.reason.value
    return str(error)


def _postfix(expression: ast.Expression) -> Iterator[ast.Expression]:
    """Yield operands before their operators. Without recursion: a sum may have any number of terms."""
    todo: list[tuple[ast.Expression, bool]] = [(expression, False)]
    while todo:
        node, ready = todo.pop()
        if ready:
            yield node
            continue
        match node:
            case ast.Group():
                todo.append((node.inner, False))
            case ast.Binary():
                todo += [(node, True), (node.right, False), (node.left, False)]
            case ast.Unary() | ast.Deref():
                todo += [(node, True), (node.operand, False)]
            case _:
                yield node


def _operand(node: ast.Expression, env: Environment, suggest: Suggest | None) -> int:
    match node:
        case ast.Number():
            return _converted(node, number_value, node.text, env.radix)
        case ast.SymbolOrNumber():
            value = env.symbol(node.text, None)
            return _converted(node, number_value, node.text, env.radix) if value is None else value & MASK
        case ast.CharConst():
            return _converted(node, char_value, node.text)
        case ast.SymbolRef():
            return _symbol(node, env, suggest)
        case ast.VarRef():
            return _variable(node, env)
        case ast.Dot():
            return env.dot & MASK
        case ast.LastAddress():
            return env.last_address & MASK
        case ast.PlusDot():
            value = (env.dot + env.increment) & MASK
            if (value ^ env.dot) & SIGN:
                raise _failed(node, "'+' would cause '.' to overflow")
            return value
        case ast.CaretDot():
            value = env.dot - env.increment
            if not 0 <= value <= MASK:
                raise _failed(node, "'^' would cause '.' to underflow")
            return value
    raise AssertionError(node)


def _converted(node: ast.Expression, convert: Callable[..., int], *arguments: str | int) -> int:
    try:
        return convert(*arguments)
    except ValueError as error:
        raise _failed(node, str(error)) from None


def _variable(node: ast.VarRef, env: Environment) -> int:
    try:
        return env.variable(node.name) & MASK
    except KeyError as error:
        near = " or ".join(f"<{name}" for name in error.args[1:])
        guess = f"; did you mean {near}?" if near else ""
        raise _failed(node, f"variable '{node.name}' is not defined{guess}") from None


def _symbol(node: ast.SymbolRef, env: Environment, suggest: Suggest | None) -> int:
    try:
        value = env.symbol(node.name, node.object)
        if value is not None:
            return value & MASK
        near = suggest(node.name) if suggest is not None else ()
    except KshellError as error:
        raise _failed(node, f"failed to dereference symbol: {error}", hint=error.hint) from error
    guess = "; did you mean " + " or ".join(f'"{name}"' for name in near) + "?" if near else ""
    raise _failed(node, "failed to dereference symbol: unknown symbol name" + guess)


def _unary(op: str, value: int) -> int:
    if op == "-":
        return -value & MASK
    if op == "~":
        return value ^ MASK
    return int(value == 0)


def _dereference(node: ast.Deref, address: int, env: Environment) -> int:
    size = env.pointer_size if node.width is None else _WIDTHS[node.width]
    try:
        data = env.read(address, size, _SPACES[node.space])
    except KshellError as error:
        message = f"failed to read from address {address:x}: {reason_text(error)}"
        raise _failed(node, message, hint=error.hint) from error
    return int.from_bytes(data, env.byteorder)


def _binary(node: ast.Binary, left: int, right: int) -> int:
    match node.op:
        case "+":
            return (left + right) & MASK
        case "-":
            return (left - right) & MASK
        case "*":
            return (left * right) & MASK
        case "&":
            return left & right
        case "|":
            return left | right
        case "^":
            return left ^ right
        case "==":
            return int(left == right)
        case "!=":
            return int(left != right)
        case "<<":
            return (left << right) & MASK if right < 64 else 0
        case ">>":
            return left >> right if right < 64 else 0
        case "%%":
            if right == 0:
                raise _failed(node, "attempted to divide by zero")
            return left % right
        case "%":
            return _divide(node, left, right)
        case "#":
            return _divide(node, left + right - 1, right) * right & MASK
    raise AssertionError(node.op)


def _divide(node: ast.Binary, left: int, right: int) -> int:
    """Signed division that truncates towards zero."""
    dividend, divisor = signed(left & MASK), signed(right)
    if divisor == 0:
        raise _failed(node, "attempted to divide by zero")
    if dividend == -SIGN and divisor == -1:
        raise _failed(node, "divide overflow")
    quotient = abs(dividend) // abs(divisor)
    return (quotient if (dividend < 0) == (divisor < 0) else -quotient) & MASK


def _failed(node: ast.Expression, message: str, *, hint: str | None = None) -> EvaluateError:
    return EvaluateError(message, node.start, node.end, hint=hint)
