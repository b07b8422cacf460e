"""Layouts of the scan's tiles, and assembly code for threads.

All of them are functions at compile time.

A tile has the axes (warp, channel, token): W warps, 16 channels, and 4 M tokens of each warp. A thread holds M
consecutive tokens of two neighbouring channels. The four threads of a channel are neighbours.

A tensor core leaves column 8 i + 2 q + p of row 8 h + g of a product to thread 4 g + q. Tiles are products without a
move between threads: row 8 h + g is channel 2 g + h, and column 8 i + 2 q + p is token M q + 2 i + p.

Shared memory holds tokens in the order of positions: position 4 t + q is token M q + t, so that the four threads of a
channel read neighbouring rows.

Assembly code gets the M tokens of a channel at once. A value for a thread or a channel is repeated M times.
"""

from triton.experimental import gluon
from triton.experimental.gluon import language as gl


@gluon.constexpr_function
def bits(count):
    """Return the powers of two below a power of two."""
    return [1 << i for i in range(count.bit_length() - 1)]


@gluon.constexpr_function
def tile_layout(W, M, *, channels_first=False):
    """Return the layout of a tile.

    Memory is accessed with the two channels first in registers, and assembly code needs the tokens first.
    """
    tokens = [[0, 0, bit] for bit in bits(M)]
    registers = [[0, 1, 0], *tokens] if channels_first else [*tokens, [0, 1, 0]]
    lanes = [[0, 0, M], [0, 0, 2 * M], [0, 2, 0], [0, 4, 0], [0, 8, 0]]
    warps = [[bit, 0, 0] for bit in bits(W)]
    return gl.DistributedLinearLayout(registers, lanes, warps, [], [W, 16, 4 * M])


@gluon.constexpr_function
def grouped_layout(W, M):
    """Return the layout of a tile of four axes.

    They are warp, channel, thread and token.
    """
    registers = [*([0, 0, 0, bit] for bit in bits(M)), [0, 1, 0, 0]]
    lanes = [[0, 0, 1, 0], [0, 0, 2, 0], [0, 2, 0, 0], [0, 4, 0, 0], [0, 8, 0, 0]]
    warps = [[bit, 0, 0, 0] for bit in bits(W)]
    return gl.DistributedLinearLayout(registers, lanes, warps, [], [W, 16, 4, M])


@gluon.constexpr_function
def token_layout(W, M):
    """Return a layout of (warp, token), one for each thread."""
    lanes = [[0, 1 << i if 1 << i < 4 * M else 0] for i in range(5)]
    return gl.DistributedLinearLayout([], lanes, [[bit, 0] for bit in bits(W)], [], [W, 4 * M])


@gluon.constexpr_function
def spread(rows, columns, registers):
    """Return bases of 32 lanes over (row, column), and of registers.

    Each lane has `registers` neighbouring columns. The other columns come first, and then the rows.
    """
    free = [[0, 0, bit] for bit in bits(columns) if bit >= registers] + [[0, bit, 0] for bit in bits(rows)]
    lanes = free[:5] + [[0, 0, 0]] * (5 - len(free))
    return lanes, [[0, 0, bit] for bit in bits(registers)] + free[5:]


@gluon.constexpr_function
def copy_layout(W, rows, columns, registers):
    """Return the layout of a copy (warp, position, column).

    A thread copies `registers` columns at once.
    """
    lanes, of_registers = spread(rows, columns, registers)
    return gl.DistributedLinearLayout(
        of_registers, lanes, [[bit, 0, 0] for bit in bits(W)], [], [W, rows, columns]
    )


@gluon.constexpr_function
def position_layout(W, M):
    """Return the layout (warp, position, channel) of a tile in shared memory."""
    registers = [[0, 0, 1], *([0, 4 * bit, 0] for bit in bits(M))]
    lanes = [[0, 1, 0], [0, 2, 0], [0, 0, 2], [0, 0, 4], [0, 0, 8]]
    return gl.DistributedLinearLayout(registers, lanes, [[bit, 0, 0] for bit in bits(W)], [], [W, 4 * M, 16])


@gluon.constexpr_function
def pair_layout(W, M):
    """Return the layout (warp, position, 2) of B and C."""
    registers = [[0, 0, 1], *([0, 4 * bit, 0] for bit in bits(M))]
    lanes = [[0, 1, 0], [0, 2, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]
    return gl.DistributedLinearLayout(registers, lanes, [[bit, 0, 0] for bit in bits(W)], [], [W, 4 * M, 2])


@gluon.constexpr_function
def state_layout(W):
    """Return the layout (warp, thread, channel) of the states before threads."""
    lanes = [[0, 1, 0], [0, 2, 0], [0, 0, 2], [0, 0, 4], [0, 0, 8]]
    return gl.DistributedLinearLayout([[0, 0, 1]], lanes, [[bit, 0, 0] for bit in bits(W)], [], [W, 4, 16])


@gluon.constexpr_function
def low_layout(W, M, RP):
    """Return the layout (warp, position, r) of dt_low for `expand`."""
    registers = [
        [0, 0, 1],
        *([0, 0, bit] for bit in bits(RP) if bit >= 8),
        *([0, 4 * bit, 0] for bit in bits(M)[1:]),
    ]
    lanes = [[0, 0, 2], [0, 0, 4], [0, 4, 0], [0, 1, 0], [0, 2, 0]]
    return gl.DistributedLinearLayout(registers, lanes, [[bit, 0, 0] for bit in bits(W)], [], [W, 4 * M, RP])


@gluon.constexpr_function
def channel_layout(W):
    """Return a layout of channels (1, 1, 16), as in a tile."""
    lanes = [[0, 0, 0], [0, 0, 0], [0, 0, 2], [0, 0, 4], [0, 0, 8]]
    return gl.DistributedLinearLayout([[0, 0, 1]], lanes, [[0, 0, 0] for _ in bits(W)], [], [1, 1, 16])


@gluon.constexpr_function
def product_layout(W):
    """Return the layout of products, one for each warp."""
    return gl.NVMMADistributedLayout([2, 0], [W, 1, 1], [1, 16, 8])


@gluon.constexpr_function
def left_layout(W):
    """Return the layout of first factors in 16 bits."""
    return gl.DotOperandLayout(0, product_layout(W), 2)


@gluon.constexpr_function
def right_layout(W):
    """Return the layout of second factors in 16 bits."""
    return gl.DotOperandLayout(1, product_layout(W), 2)


@gluon.constexpr_function
def constraints(M, results, arguments):
    """Return the constraints of assembly code.

    Results do not share registers with arguments.
    """
    return ",".join(["=&f"] * (M * results) + ["f"] * (M * arguments))


@gluon.constexpr_function
def fold_code(M, backward):
    """Return code for the effect of tokens on a state.

    Arguments a, b. Results P and S of state = P state + S, for the tokens of this thread and of those before it in the
    order of the scan. A token maps the state to a state + b, and backward to a (state + b), from the last token to
    the first one.
    """
    a, b = [f"${2 * M + t}" for t in range(M)], [f"${3 * M + t}" for t in range(M)]
    if backward:
        a, b = a[::-1], b[::-1]
    mode, limit = ("down", "0x1c1f") if backward else ("up", "0x1c00")
    lines = [f"mov.f32 P, {a[0]};", f"mul.f32 S, {a[0]}, {b[0]};" if backward else f"mov.f32 S, {b[0]};"]
    for t in range(1, M):
        lines.append(f"mul.f32 P, P, {a[t]};")
        if backward:
            lines += [f"add.f32 S, S, {b[t]};", f"mul.f32 S, S, {a[t]};"]
        else:
            lines.append(f"fma.rn.f32 S, {a[t]}, S, {b[t]};")
    for distance in (1, 2):
        lines += [
            f"shfl.sync.{mode}.b32 x|p, P, {distance}, {limit}, 0xffffffff;",
            f"shfl.sync.{mode}.b32 y|p, S, {distance}, {limit}, 0xffffffff;",
            "@p fma.rn.f32 S, P, y, S;",
            "@p mul.f32 P, P, x;",
        ]
    for t in range(M):
        lines += [f"mov.f32 ${t}, P;", f"mov.f32 ${M + t}, S;"]
    return "{ .reg .f32 P, S, x, y; .reg .pred p; " + " ".join(lines) + " }"


@gluon.constexpr_function
def walk_code(M):
    """Return code for the states of a tile.

    Arguments a, b, P and S of `fold_code`, and the state before the warp. Results: the state after each token, that
    before the thread, and that after the warp.
    """
    lines = [
        f"mov.f32 h, ${7 * M};",
        f"shfl.sync.idx.b32 x, ${5 * M}, 3, 0x1c1f, 0xffffffff;",
        f"shfl.sync.idx.b32 y, ${6 * M}, 3, 0x1c1f, 0xffffffff;",
        "fma.rn.f32 e, x, h, y;",
        f"shfl.sync.up.b32 x|p, ${5 * M}, 1, 0x1c00, 0xffffffff;",
        f"shfl.sync.up.b32 y|p, ${6 * M}, 1, 0x1c00, 0xffffffff;",
        "@p fma.rn.f32 h, x, h, y;",
    ]
    for t in range(M):
        lines += [f"mov.f32 ${M + t}, h;", f"mov.f32 ${2 * M + t}, e;"]
    for t in range(M):
        lines += [f"fma.rn.f32 h, ${3 * M + t}, h, ${4 * M + t};", f"mov.f32 ${t}, h;"]
    return "{ .reg .f32 x, y, h, e; .reg .pred p; " + " ".join(lines) + " }"


@gluon.constexpr_function
def repeat_code(M):
    """Return code for the states after known ones.

    Arguments a, b and the state before the thread. Results: a times the state before each token, and the state after
    it.
    """
    lines = [f"mov.f32 h, ${4 * M};"]
    for t in range(M):
        lines += [f"mul.f32 r, ${2 * M + t}, h;", f"add.f32 h, r, ${3 * M + t};"]
        lines += [f"mov.f32 ${t}, r;", f"mov.f32 ${M + t}, h;"]
    return "{ .reg .f32 h, r; " + " ".join(lines) + " }"


@gluon.constexpr_function
def walk_back_code(M):
    """Return code for the gradients of the states of a tile.

    Arguments a, b, P and S of `fold_code`, and the gradient that later warps pass on. Results: the gradient of the
    state after each token, and the gradient that the warp passes on.
    """
    lines = [
        f"mov.f32 g, ${6 * M};",
        f"shfl.sync.idx.b32 x, ${4 * M}, 0, 0x1c1f, 0xffffffff;",
        f"shfl.sync.idx.b32 y, ${5 * M}, 0, 0x1c1f, 0xffffffff;",
        "fma.rn.f32 e, x, g, y;",
        f"shfl.sync.down.b32 x|p, ${4 * M}, 1, 0x1c1f, 0xffffffff;",
        f"shfl.sync.down.b32 y|p, ${5 * M}, 1, 0x1c1f, 0xffffffff;",
        "@p fma.rn.f32 g, x, g, y;",
    ]
    lines += [f"mov.f32 ${M + t}, e;" for t in range(M)]
    for t in reversed(range(M)):
        lines += [f"add.f32 g, g, ${3 * M + t};", f"mov.f32 ${t}, g;", f"mul.f32 g, g, ${2 * M + t};"]
    return "{ .reg .f32 x, y, g, e; .reg .pred p; " + " ".join(lines) + " }"


@gluon.constexpr_function
def dot_code(M):
    """Return code for the sum of a b over tokens."""
    lines = [f"mul.f32 x, ${M}, ${2 * M};"]
    lines += [f"fma.rn.f32 x, ${M + t}, ${2 * M + t}, x;" for t in range(1, M)]
    lines += [f"mov.f32 ${t}, x;" for t in range(M)]
    return "{ .reg .f32 x; " + " ".join(lines) + " }"
