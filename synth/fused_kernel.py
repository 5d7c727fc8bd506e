"""The device code of `fused`: one kernel, in Triton; importable only where Triton is.

Names in capitals are constants of a compiled kernel. Under the interpreter a constant must stand on
the right of an operator, where a tensor is.
"""

import triton.language as tl

from .augment import AUGMENT_OP, FINE
from .crops import CROP_OP
from .modes import _FOOT, _WHITE, _XYZ_FROM_RGB, LAB_SCALE
from .philox import PER_PHOTO
from .philox_kernels import encrypt, kernel, to_below, to_normal, to_uniform
from .recipe import MOST_SEVERE, SEVERITY_OP
from .texture import MASK_LEVEL, STEP

GRAYSCALE, TONE, GRAIN, TEXTURE = 1, 2, 3, 4
"""Kinds of defects, packed into `KINDS` four bits each."""

NUMBERS = 8
"""Numbers that are given for each defect."""

# As int32 of the same bits.
C_PER_PHOTO = tl.constexpr(PER_PHOTO - 2**32)
C_AUGMENT_OP = tl.constexpr(AUGMENT_OP - 2**32)
C_CROP_OP = tl.constexpr(CROP_OP - 2**32)
C_SEVERITY_OP = tl.constexpr(SEVERITY_OP - 2**32)
C_MOST_SEVERE = tl.constexpr(MOST_SEVERE)
C_FINE = tl.constexpr(FINE)
C_STEP = tl.constexpr(STEP)
C_MASK_LEVEL = tl.constexpr(MASK_LEVEL)
C_NUMBERS = tl.constexpr(NUMBERS)
C_GRAYSCALE = tl.constexpr(GRAYSCALE)
C_TONE = tl.constexpr(TONE)
C_GRAIN = tl.constexpr(GRAIN)
C_TEXTURE = tl.constexpr(TEXTURE)
C_FOOT = tl.constexpr(_FOOT**3)
C_SLOPE = tl.constexpr(1 / (3 * _FOOT**2))
_M = _XYZ_FROM_RGB
C_XR, C_XG, C_XB = (tl.constexpr(v / _WHITE[0]) for v in _M[0])
C_YR, C_YG, C_YB = (tl.constexpr(v / _WHITE[1]) for v in _M[1])
C_ZR, C_ZG, C_ZB = (tl.constexpr(v / _WHITE[2]) for v in _M[2])
C_L, C_A, C_B = (tl.constexpr(v) for v in LAB_SCALE)


@kernel
def _luma(r, g, b):
    return 0.299 * r + 0.587 * g + 0.114 * b


@kernel
def _clip(x):
    return tl.minimum(tl.maximum(x, 0.0), 1.0)


@kernel
def _linear(c):
    return tl.where(c > 0.04045, tl.exp(tl.log((c + 0.055) / 1.055) * 2.4), c / 12.92)


@kernel
def _lab_response(t):
    # The logarithm of what takes the straight foot is not used, but must be finite.
    root = tl.exp(tl.log(tl.maximum(t, 1e-12)) * (1.0 / 3.0))
    return tl.where(t > C_FOOT, root, t * C_SLOPE + 4.0 / 29.0)


@kernel
def _bend(x, black, white, gamma):
    curve = tl.exp(tl.log(tl.maximum(x, 1e-12)) * gamma)
    curve = tl.where(gamma != 1.0, curve, x)
    return _clip(black + (white - black) * curve)


@kernel
def _normals(key, row, quad, op, plane, ROWS: tl.constexpr, QUADS: tl.constexpr):
    """Normal numbers of one plane for a tile, (ROWS, 4 QUADS): four to a call of Philox."""
    a, b, c, d = encrypt(key, quad, row, op, plane)
    n0, n1 = to_normal(a, b)
    n2, n3 = to_normal(c, d)
    return tl.reshape(tl.join(tl.join(n0, n2), tl.join(n1, n3)), (ROWS, 4 * QUADS))


@kernel
def _reflect(place, length):
    period = tl.maximum(2 * (length - 1), 1)
    place = (place % period + period) % period
    return tl.minimum(place, period - place)


@kernel
def _address(
    y,
    x,
    top,
    left,
    turn,
    height,
    width,
    H,
    W,
    stride_y,
    stride_x,
    CROP: tl.constexpr,
    MOVES: tl.constexpr,
):
    """Element of the pixel that a turned crop shows at (y, x)."""
    if CROP:
        swap = (turn >> 2) & 1
        row = tl.where(swap == 1, x, y)
        column = tl.where(swap == 1, y, x)
        row = tl.where((turn & 1) == 1, H - 1 - row, row) + top
        column = tl.where(((turn >> 1) & 1) == 1, W - 1 - column, column) + left
    else:
        row = y
        column = x
    if MOVES:
        row = _reflect(row, height)
        column = _reflect(column, width)
    return row.to(tl.int64) * stride_y + column.to(tl.int64) * stride_x


@kernel
def _load(place, inside, BYTES: tl.constexpr):
    value = tl.load(place, mask=inside, other=0).to(tl.float32)
    if BYTES:
        value = value / 255.0
    return value


@kernel
def _texel(bank, base, down, right, side, swap, inside, POWER_OF_2: tl.constexpr):
    if POWER_OF_2:
        down = down & (side - 1)
        right = right & (side - 1)
    else:
        down = (down % side + side) % side
        right = (right % side + side) % side
    row = tl.where(swap == 1, right, down)
    column = tl.where(swap == 1, down, right)
    return tl.load(bank + base + row * side + column, mask=inside, other=0).to(tl.float32)


@kernel
def _tile(
    row,
    quad,
    column,
    photo,
    key,
    zero,
    height,
    width,
    top,
    left,
    turn,
    source,
    along,
    across,
    down,
    right,
    lift,
    gain,
    severity,
    stride_y,
    stride_x,
    stride_c,
    bank,
    light_ground,
    choices,
    counts,
    numbers,
    aged,
    aged_b,
    aged_c,
    aged_y,
    aged_x,
    clean,
    clean_b,
    clean_c,
    clean_y,
    clean_x,
    mask,
    H,
    W,
    side,
    KINDS: tl.constexpr,
    NUM_DEFECTS: tl.constexpr,
    GRAY_AT: tl.constexpr,
    BYTES: tl.constexpr,
    CROP: tl.constexpr,
    MOVES: tl.constexpr,
    TONES: tl.constexpr,
    AGED_CHANNELS: tl.constexpr,
    CLEAN_CHANNELS: tl.constexpr,
    LAB: tl.constexpr,
    ROWS: tl.constexpr,
    QUADS: tl.constexpr,
    POWER_OF_2: tl.constexpr,
):
    """Make one tile of one photograph."""
    inside = (row < H) & (column < W)
    # Gather the clean pixels.
    if MOVES:
        y2 = 2 * row - (H - 1)
        x2 = 2 * column - (W - 1)
        rows = ((along * y2 - across * x2 + (H - 1) * C_FINE) >> 1) + down
        columns = ((across * y2 + along * x2 + (W - 1) * C_FINE) >> 1) + right
        y = rows >> 16
        x = columns >> 16
        dy = (rows & (C_FINE - 1)).to(tl.float32) / C_FINE
        dx = (columns & (C_FINE - 1)).to(tl.float32) / C_FINE
        p00 = source + _address(
            y, x, top, left, turn, height, width, H, W, stride_y, stride_x, CROP, MOVES
        )
        p01 = source + _address(
            y,
            x + 1,
            top,
            left,
            turn,
            height,
            width,
            H,
            W,
            stride_y,
            stride_x,
            CROP,
            MOVES,
        )
        p10 = source + _address(
            y + 1,
            x,
            top,
            left,
            turn,
            height,
            width,
            H,
            W,
            stride_y,
            stride_x,
            CROP,
            MOVES,
        )
        p11 = source + _address(
            y + 1,
            x + 1,
            top,
            left,
            turn,
            height,
            width,
            H,
            W,
            stride_y,
            stride_x,
            CROP,
            MOVES,
        )
        w00 = (1.0 - dy) * (1.0 - dx)
        w01 = (1.0 - dy) * dx
        w10 = dy * (1.0 - dx)
        w11 = dy * dx
        r = (
            w00 * _load(p00, inside, BYTES)
            + w01 * _load(p01, inside, BYTES)
            + w10 * _load(p10, inside, BYTES)
            + w11 * _load(p11, inside, BYTES)
        )
        g = (
            w00 * _load(p00 + stride_c, inside, BYTES)
            + w01 * _load(p01 + stride_c, inside, BYTES)
            + w10 * _load(p10 + stride_c, inside, BYTES)
            + w11 * _load(p11 + stride_c, inside, BYTES)
        )
        b = (
            w00 * _load(p00 + 2 * stride_c, inside, BYTES)
            + w01 * _load(p01 + 2 * stride_c, inside, BYTES)
            + w10 * _load(p10 + 2 * stride_c, inside, BYTES)
            + w11 * _load(p11 + 2 * stride_c, inside, BYTES)
        )
    else:
        place = source + _address(
            row,
            column,
            top,
            left,
            turn,
            height,
            width,
            H,
            W,
            stride_y,
            stride_x,
            CROP,
            MOVES,
        )
        r = _load(place, inside, BYTES)
        g = _load(place + stride_c, inside, BYTES)
        b = _load(place + 2 * stride_c, inside, BYTES)
    if TONES:
        r = _clip((r - 0.5) * gain + lift)
        g = _clip((g - 0.5) * gain + lift)
        b = _clip((b - 0.5) * gain + lift)

    # Write what the network is to answer.
    target = clean + photo * clean_b + row * clean_y + column * clean_x
    kind = clean.dtype.element_ty
    if CLEAN_CHANNELS == 1:
        tl.store(target, _luma(r, g, b).to(kind), mask=inside)
    elif LAB:
        lr = _linear(r)
        lg = _linear(g)
        lb = _linear(b)
        fx = _lab_response(lr * C_XR + lg * C_XG + lb * C_XB)
        fy = _lab_response(lr * C_YR + lg * C_YG + lb * C_YB)
        fz = _lab_response(lr * C_ZR + lg * C_ZG + lb * C_ZB)
        tl.store(target, ((116.0 * fy - 16.0) / C_L).to(kind), mask=inside)
        tl.store(target + clean_c, (500.0 * (fx - fy) / C_A).to(kind), mask=inside)
        tl.store(target + 2 * clean_c, (200.0 * (fy - fz) / C_B).to(kind), mask=inside)
    else:
        tl.store(target, r.to(kind), mask=inside)
        tl.store(target + clean_c, g.to(kind), mask=inside)
        tl.store(target + 2 * clean_c, b.to(kind), mask=inside)

    # Age.
    hidden = row + column < 0
    for op in tl.static_range(NUM_DEFECTS):  # pyright: ignore[reportGeneralTypeIssues]
        its = numbers + op * C_NUMBERS
        if ((KINDS >> (4 * op)) & 15) == C_GRAYSCALE:
            r = _luma(r, g, b)
        elif ((KINDS >> (4 * op)) & 15) == C_TONE:
            a, c, d, _ = encrypt(key, zero, zero, op, C_PER_PHOTO)
            black = tl.load(its) + to_uniform(a) * (tl.load(its + 1) - tl.load(its))
            white = tl.load(its + 2) + to_uniform(c) * (tl.load(its + 3) - tl.load(its + 2))
            gamma = tl.load(its + 4) + to_uniform(d) * (tl.load(its + 5) - tl.load(its + 4))
            black = tl.minimum(black * severity, 0.5)
            white = 1.0 - tl.minimum(white * severity, 0.5)
            gamma = 1.0 + tl.minimum(severity, 1.0) * (gamma - 1.0)
            r = _bend(r, black, white, gamma)
            if op <= GRAY_AT:
                g = _bend(g, black, white, gamma)
                b = _bend(b, black, white, gamma)
        elif ((KINDS >> (4 * op)) & 15) == C_GRAIN:
            a, _, _, _ = encrypt(key, zero, zero, op, C_PER_PHOTO)
            sigma = tl.load(its) + to_uniform(a) * (tl.load(its + 1) - tl.load(its))
            sigma = tl.minimum(sigma * severity, 1.0)
            r = _clip(r + sigma * _normals(key, row, quad, op, 0, ROWS, QUADS))
            if op <= GRAY_AT:
                g = _clip(g + sigma * _normals(key, row, quad, op, 1, ROWS, QUADS))
                b = _clip(b + sigma * _normals(key, row, quad, op, 2, ROWS, QUADS))
        else:
            a, c, d, e = encrypt(key, zero, zero, op, C_PER_PHOTO)
            f, h, _, _ = encrypt(key, zero + 1, zero, op, C_PER_PHOTO)
            alpha = tl.load(its) + to_uniform(a) * (tl.load(its + 1) - tl.load(its))
            alpha = tl.minimum(alpha * severity, 1.0)
            least = tl.load(its + 2).to(tl.int32)
            span = tl.load(its + 3).to(tl.int64)
            step = least + to_below(h, span).to(tl.int32)
            step = tl.minimum(step, tl.load(its + 4).to(tl.int32))
            number = to_below(c, tl.load(counts + 2 * op))
            texture = tl.load(choices + op * tl.load(counts + 2 * op + 1) + number)
            start_y = to_below(d, side.to(tl.int64)).to(tl.int32) * C_STEP
            start_x = to_below(e, side.to(tl.int64)).to(tl.int32) * C_STEP
            position = to_below(f, 8).to(tl.int32)
            y = start_y + tl.where((position & 1) == 1, -row, row) * step
            x = start_x + tl.where(((position >> 1) & 1) == 1, -column, column) * step
            dy = (y & (C_STEP - 1)).to(tl.float32) / C_STEP
            dx = (x & (C_STEP - 1)).to(tl.float32) / C_STEP
            y = y >> 12
            x = x >> 12
            swap = (position >> 2) & 1
            base = texture * side * side
            t00 = _texel(bank, base, y, x, side, swap, inside, POWER_OF_2)
            t01 = _texel(bank, base, y, x + 1, side, swap, inside, POWER_OF_2)
            t10 = _texel(bank, base, y + 1, x, side, swap, inside, POWER_OF_2)
            t11 = _texel(bank, base, y + 1, x + 1, side, swap, inside, POWER_OF_2)
            upper = t00 + dx * (t01 - t00)
            lower = t10 + dx * (t11 - t10)
            layer = alpha * ((upper + dy * (lower - upper)) / 255.0)
            darkens = tl.load(light_ground + texture) != 0
            r = tl.where(darkens, r * (1.0 - layer), _clip(r + layer))
            if op <= GRAY_AT:
                g = tl.where(darkens, g * (1.0 - layer), _clip(g + layer))
                b = tl.where(darkens, b * (1.0 - layer), _clip(b + layer))
            hidden = hidden | (layer >= C_MASK_LEVEL)

    # Write what the network sees, and the mask.
    target = aged + photo * aged_b + row * aged_y + column * aged_x
    kind = aged.dtype.element_ty
    if GRAY_AT < NUM_DEFECTS:
        tl.store(target, r.to(kind), mask=inside)
        if AGED_CHANNELS == 3:
            tl.store(target + aged_c, r.to(kind), mask=inside)
            tl.store(target + 2 * aged_c, r.to(kind), mask=inside)
    elif AGED_CHANNELS == 1:
        tl.store(target, _luma(r, g, b).to(kind), mask=inside)
    else:
        tl.store(target, r.to(kind), mask=inside)
        tl.store(target + aged_c, g.to(kind), mask=inside)
        tl.store(target + 2 * aged_c, b.to(kind), mask=inside)
    tl.store(mask + (photo * H + row) * W + column, hidden.to(tl.uint8), mask=inside)


@kernel
def age_tiles(
    flat,
    offsets,
    heights,
    widths,
    stride_y,
    stride_x,
    stride_c,
    keys,
    bank,
    light_ground,
    choices,
    counts,
    numbers,
    aged,
    aged_b,
    aged_c,
    aged_y,
    aged_x,
    clean,
    clean_b,
    clean_c,
    clean_y,
    clean_x,
    mask,
    H,
    W,
    side,
    p,
    most_angle,
    most_zoom,
    most_shift,
    brightness,
    contrast,
    severity_sigma,
    KINDS: tl.constexpr,
    NUM_DEFECTS: tl.constexpr,
    GRAY_AT: tl.constexpr,
    PACKED: tl.constexpr,
    BYTES: tl.constexpr,
    CROP: tl.constexpr,
    MOVES: tl.constexpr,
    TONES: tl.constexpr,
    WORN: tl.constexpr,
    AGED_CHANNELS: tl.constexpr,
    CLEAN_CHANNELS: tl.constexpr,
    LAB: tl.constexpr,
    ROWS: tl.constexpr,
    QUADS: tl.constexpr,
    TILES: tl.constexpr,
    POWER_OF_2: tl.constexpr,
    SIZE_CLASS: tl.constexpr,
):
    """Age, of one photograph, 4 QUADS columns of TILES tiles of ROWS rows; see `fused`."""
    photo = tl.program_id(2).to(tl.int64)
    key = tl.load(keys + photo)
    # Of one element: numbers of a photograph broadcast against its tiles.
    zero = tl.zeros((1, 1), tl.int32)
    height = tl.load(heights + photo).to(tl.int32)
    width = tl.load(widths + photo).to(tl.int32)
    if PACKED:
        stride_y = 3 * width

    # Where the crop lies in the photograph.
    top = 0
    left = 0
    turn = 0
    if CROP:
        a, b, c, _ = encrypt(key, zero, zero, C_CROP_OP, C_PER_PHOTO)
        top = to_below(a, (height - H + 1).to(tl.int64)).to(tl.int32)
        left = to_below(b, (width - W + 1).to(tl.int64)).to(tl.int32)
        turn = to_below(c, 8).to(tl.int32)
    source = flat + tl.load(offsets + photo)

    # How it is varied.
    along = zero
    across = zero
    down = zero
    right = zero
    lift = zero
    gain = zero
    a0, a1, a2, a3 = encrypt(key, zero, zero, C_AUGMENT_OP, C_PER_PHOTO)
    a4, a5, a6, _ = encrypt(key, zero + 1, zero, C_AUGMENT_OP, C_PER_PHOTO)
    if MOVES:
        angle = (2.0 * to_uniform(a1) - 1.0) * most_angle
        smaller = 1.0 / (1.0 + to_uniform(a2) * most_zoom)
        moved = to_uniform(a0) < p
        along = tl.floor(tl.cos(angle) * smaller * C_FINE + 0.5).to(tl.int32)
        across = tl.floor(tl.sin(angle) * smaller * C_FINE + 0.5).to(tl.int32)
        down = tl.floor((2.0 * to_uniform(a3) - 1.0) * most_shift + 0.5).to(tl.int32)
        right = tl.floor((2.0 * to_uniform(a4) - 1.0) * most_shift + 0.5).to(tl.int32)
        along = tl.where(moved, along, C_FINE)
        across = tl.where(moved, across, 0)
        down = tl.where(moved, down, 0)
        right = tl.where(moved, right, 0)
    if TONES:
        lift = 0.5 + (2.0 * to_uniform(a5) - 1.0) * brightness
        gain = 1.0 + (2.0 * to_uniform(a6) - 1.0) * contrast

    # How worn it is.
    severity = 1.0
    if WORN:
        a, c, _, _ = encrypt(key, zero, zero, C_SEVERITY_OP, C_PER_PHOTO)
        normal, _ = to_normal(a, c)
        severity = tl.exp(severity_sigma * normal)
        severity = tl.minimum(tl.maximum(severity, 1.0 / C_MOST_SEVERE), C_MOST_SEVERE)

    quad = tl.program_id(0) * QUADS + tl.arange(0, QUADS)[None, :]
    column = tl.program_id(0) * (4 * QUADS) + tl.arange(0, 4 * QUADS)[None, :]
    # Many rows to a program: what is drawn above is drawn once for all of them.
    for tile in range(TILES):
        row = (tl.program_id(1) * TILES + tile) * ROWS + tl.arange(0, ROWS)[:, None]
        _tile(
            row,
            quad,
            column,
            photo,
            key,
            zero,
            height,
            width,
            top,
            left,
            turn,
            source,
            along,
            across,
            down,
            right,
            lift,
            gain,
            severity,
            stride_y,
            stride_x,
            stride_c,
            bank,
            light_ground,
            choices,
            counts,
            numbers,
            aged,
            aged_b,
            aged_c,
            aged_y,
            aged_x,
            clean,
            clean_b,
            clean_c,
            clean_y,
            clean_x,
            mask,
            H,
            W,
            side,
            KINDS=KINDS,
            NUM_DEFECTS=NUM_DEFECTS,
            GRAY_AT=GRAY_AT,
            BYTES=BYTES,
            CROP=CROP,
            MOVES=MOVES,
            TONES=TONES,
            AGED_CHANNELS=AGED_CHANNELS,
            CLEAN_CHANNELS=CLEAN_CHANNELS,
            LAB=LAB,
            ROWS=ROWS,
            QUADS=QUADS,
            POWER_OF_2=POWER_OF_2,
        )
