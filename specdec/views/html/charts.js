// Figures: small drawings of the report's own numbers. Colours and dark mode are the style sheet's.

const FAMILIES = report.families; // by name {title, marker}, in the order of legends
// The markers of figures (specdec/views/palette.py), but for the circle.
const SHAPES = {
  s: [[-0.85, -0.85], [0.85, -0.85], [0.85, 0.85], [-0.85, 0.85]],
  d: [[0, -1.2], [0.75, 0], [0, 1.2], [-0.75, 0]],
  D: [[0, -1.2], [1.2, 0], [0, 1.2], [-1.2, 0]],
  '^': [[0, -1.15], [1.1, 0.85], [-1.1, 0.85]],
  v: [[0, 1.15], [1.1, -0.85], [-1.1, -0.85]],
  P: [[-0.4, -1.1], [0.4, -1.1], [0.4, -0.4], [1.1, -0.4], [1.1, 0.4], [0.4, 0.4], [0.4, 1.1], [-0.4, 1.1], [-0.4, 0.4], [-1.1, 0.4], [-1.1, -0.4], [-0.4, -0.4]],
  '<': [[-1.15, 0], [0.85, -1.1], [0.85, 1.1]],
  '>': [[1.15, 0], [-0.85, -1.1], [-0.85, 1.1]],
  8: [[-0.45, -1.1], [0.45, -1.1], [1.1, -0.45], [1.1, 0.45], [0.45, 1.1], [-0.45, 1.1], [-1.1, 0.45], [-1.1, -0.45]],
  p: [[0, -1.15], [1.1, -0.36], [0.68, 0.93], [-0.68, 0.93], [-1.1, -0.36]],
  h: [[0, -1.15], [1, -0.58], [1, 0.58], [0, 1.15], [-1, 0.58], [-1, -0.58]],
  H: [[-1.15, 0], [-0.58, 1], [0.58, 1], [1.15, 0], [0.58, -1], [-0.58, -1]],
  1: [[-0.2, -0.1], [-1.05, -0.7], [-0.85, -0.95], [0, -0.35], [0.85, -0.95], [1.05, -0.7], [0.2, -0.1], [0.2, 1.15], [-0.2, 1.15]],
  2: [[-0.2, 0.1], [-1.05, 0.7], [-0.85, 0.95], [0, 0.35], [0.85, 0.95], [1.05, 0.7], [0.2, 0.1], [0.2, -1.15], [-0.2, -1.15]],
  3: [[0.1, -0.2], [0.7, -1.05], [0.95, -0.85], [0.35, 0], [0.95, 0.85], [0.7, 1.05], [0.1, 0.2], [-1.15, 0.2], [-1.15, -0.2]],
  4: [[-0.1, -0.2], [-0.7, -1.05], [-0.95, -0.85], [-0.35, 0], [-0.95, 0.85], [-0.7, 1.05], [-0.1, 0.2], [1.15, 0.2], [1.15, -0.2]],
  '.': [[0, -0.7], [0.6, -0.35], [0.6, 0.35], [0, 0.7], [-0.6, 0.35], [-0.6, -0.35]],
  _: [[-1.2, -0.25], [1.2, -0.25], [1.2, 0.25], [-1.2, 0.25]],
  '|': [[-0.25, -1.2], [0.25, -1.2], [0.25, 1.2], [-0.25, 1.2]],
  '+': [[-0.2, -1.15], [0.2, -1.15], [0.2, -0.2], [1.15, -0.2], [1.15, 0.2], [0.2, 0.2], [0.2, 1.15], [-0.2, 1.15], [-0.2, 0.2], [-1.15, 0.2], [-1.15, -0.2], [-0.2, -0.2]],
  '*': [[0, -1.25], [0.31, -0.42], [1.19, -0.39], [0.49, 0.16], [0.73, 1.01], [0, 0.52], [-0.73, 1.01], [-0.49, 0.16], [-1.19, -0.39], [-0.31, -0.42]],
  X: [[0, -0.4], [0.7, -1.1], [1.1, -0.7], [0.4, 0], [1.1, 0.7], [0.7, 1.1], [0, 0.4], [-0.7, 1.1], [-1.1, 0.7], [-0.4, 0], [-1.1, -0.7], [-0.7, -1.1]],
  x: [[0, -0.4], [0.7, -1.1], [1.1, -0.7], [0.4, 0], [1.1, 0.7], [0.7, 1.1], [0, 0.4], [-0.7, 1.1], [-1.1, 0.7], [-0.4, 0], [-1.1, -0.7], [-0.7, -1.1]],
};

/** The mark of a drafter, or of a family: `look` is whose colour it has, and its shape tells families apart as well. */
function mark({ family, look }, x, y, radius, title) {
  const shape = SHAPES[FAMILIES[family].marker];
  const place = { class: `mark-${look}` };
  const found = shape
    ? draw('polygon', { ...place, points: shape.map(([dx, dy]) => `${x + dx * radius},${y + dy * radius}`).join(' ') })
    : draw('circle', { ...place, cx: x, cy: y, r: radius });
  if (title) found.append(draw('title', { text: title }));
  return found;
}

function icon(drafter) {
  return draw('svg', { class: 'icon', viewBox: '-8 -8 16 16', width: 14, height: 14, 'aria-hidden': 'true' }, mark(drafter, 0, 0, 5));
}

/** Axes, grid and titles around a plot: {svg, x, y} with `x` and `y` from values to pixels. `isWhole`: of whole xs. */
function axes({ width, height, xs, ys, xTitle, yTitle, label, yText = String, isWhole = false }) {
  const [left, right, top, bottom] = [64, 16, 12, 44];
  const scale = (range, from, to) => (value) => from + ((value - range[0]) / (range[1] - range[0] || 1)) * (to - from);
  const [x, y] = [scale(xs, left, width - right), scale(ys, height - bottom, top)];
  const svg = draw('svg', { class: 'plot', viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': label });
  for (const value of ticks(ys[0], ys[1], 5)) {
    svg.append(draw('line', { class: 'grid', x1: left, x2: width - right, y1: y(value), y2: y(value) }));
    svg.append(draw('text', { class: 'tick', x: left - 8, y: y(value) + 4, 'text-anchor': 'end', text: yText(value) }));
  }
  for (const value of ticks(xs[0], xs[1], 6).filter((one) => !isWhole || Number.isInteger(one))) {
    svg.append(draw('text', { class: 'tick', x: x(value), y: height - bottom + 18, 'text-anchor': 'middle', text: String(value) }));
    svg.append(draw('line', { class: 'axis', x1: x(value), x2: x(value), y1: height - bottom, y2: height - bottom + 4 }));
  }
  svg.append(draw('line', { class: 'axis', x1: left, x2: width - right, y1: height - bottom, y2: height - bottom }));
  svg.append(draw('text', { class: 'title', x: (left + width - right) / 2, y: height - 6, 'text-anchor': 'middle', text: xTitle }));
  svg.append(draw('text', { class: 'title', x: 0, y: 0, 'text-anchor': 'middle', transform: `translate(12 ${(top + height - bottom) / 2}) rotate(-90)`, text: yTitle }));
  return { svg, x, y };
}

/** Which drafters a figure of few lines shows: the best of each family, best first. */
function bestOfFamilies(rows) {
  const found = new Map();
  for (const row of rows) if (row.rank !== null && !found.has(row.family)) found.set(row.family, row);
  return [...found.values()];
}

function key(rows) {
  const items = rows.map((row) => make('li', {}, icon(row), `${FAMILIES[row.family].title} `, make('code', { text: row.drafter_name })));
  return make('ul', { class: 'key-list' }, ...items);
}

function positionFigure(figure, position, rows) {
  const shown = bestOfFamilies(rows).filter((row) => position.by_drafter[row.drafter_name]);
  const lines = shown.map((row) => ({
    row,
    points: position.by_drafter[row.drafter_name]
      .map(([accepted, drafted], index) => ({ at: (index + 0.5) * position.bin, rate: accepted / drafted, drafted }))
      .filter((point) => point.drafted > 0),
  }));
  const most = Math.max(1, ...lines.flatMap((line) => line.points.map((point) => point.drafted)));
  const longest = Math.max(1, ...lines.map((line) => position.by_drafter[line.row.drafter_name].length)) * position.bin;
  const { svg, x, y } = axes({
    width: 560, height: 300, xs: [0, longest], ys: [0, 1], yText: (value) => `${Math.round(100 * value)} %`,
    xTitle: 'place of the round in the answer (tokens)', yTitle: 'accepted / drafted',
    label: 'Acceptance rate by place in the answer',
  });
  for (const { row, points } of lines) {
    svg.append(draw('polyline', { class: `line line-${row.look}`, points: points.map((p) => `${x(p.at)},${y(p.rate)}`).join(' ') }));
    for (const point of points) {
      const text = `${row.drafter_name}, tokens ${point.at - position.bin / 2} to ${point.at + position.bin / 2}: ${percent(point.rate)} of ${point.drafted}`;
      svg.append(mark(row, x(point.at), y(point.rate), 1.8 + 3.2 * Math.sqrt(point.drafted / most), text));
    }
  }
  show(figure, svg, key(shown));
}

const boxAround = (x, y, reach) => ({ left: x - reach, right: x + reach, top: y - reach, bottom: y + reach });
const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

/** Where a point's name meets no mark and no other name: beside it, else a line or two above or below. */
function freePlace(x, y, width, taken) {
  const isLeftFirst = x > 400;
  const places = [4, 18, -10, 32, -24, 46, -38, 60].flatMap((down) => [isLeftFirst, !isLeftFirst].map((isLeft) => {
    const at = x + (isLeft ? -11 : 11);
    const [left, right] = isLeft ? [at - width, at] : [at, at + width];
    return { x: at, y: y + down, isLeft, box: { left, right, top: y + down - 11, bottom: y + down + 3 } };
  }));
  const inside = places.filter(({ box }) => box.left > 0 && box.right < 560 && box.top > 0 && box.bottom < 260);
  return inside.find(({ box }) => !taken.some((one) => meet(one, box))) ?? inside[0] ?? places[0];
}

function passesFigure(figure, rows) {
  const points = rows.filter((row) => row.rank !== null && row.acceptance_len !== null);
  const most = (name) => Math.max(1, ...points.map((row) => row[name]));
  const { svg, x, y } = axes({
    width: 560, height: 300, xs: [0, 1.08 * most('passes_per_round')], ys: [0, 1.1 * most('acceptance_len')],
    xTitle: 'drafter passes per round', yTitle: 'tokens per round (bonus included)',
    label: 'Tokens per round against drafter passes per round',
  });
  const best = new Set(bestOfFamilies(points));
  for (const row of [...points].reverse()) {
    const text = `${row.drafter_name}: ${fixed(row.acceptance_len)} tokens, ${fixed(row.passes_per_round)} passes a round, ${times(row.speedup_mean)}`;
    const drawn = mark(row, x(row.passes_per_round), y(row.acceptance_len), best.has(row) ? 6.5 : 4, text);
    if (!best.has(row)) drawn.classList.add('faint');
    svg.append(drawn);
  }
  const taken = [...best].map((row) => boxAround(x(row.passes_per_round), y(row.acceptance_len), 7));
  for (const row of sorted([...best], (one) => -one.acceptance_len, false)) {
    const text = `${FAMILIES[row.family].title} ${times(row.speedup_mean)}`;
    const place = freePlace(x(row.passes_per_round), y(row.acceptance_len), 7.2 * text.length, taken);
    taken.push(place.box);
    svg.append(draw('text', { class: 'label', x: place.x, y: place.y, 'text-anchor': place.isLeft ? 'end' : 'start', text }));
  }
  show(figure, svg, key([...best]));
}

function show(figure, ...parts) {
  figure.replaceChildren(figure.querySelector('figcaption'), ...parts);
}
