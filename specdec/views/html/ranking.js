// The ranking: one row per drafter, with its interval drawn in place; sorted and filtered.

const PLOT = { width: 150, height: 24, pad: 8 };

/** The rows of an engine's ranking and plain decoding, each with its drafter's family and look. */
function rankedRows(report, ranked) {
  if (!ranked) return [];
  const drafters = new Map(report.drafters.map((drafter) => [drafter.name, drafter]));
  const isFaster = (row) => row.rank !== null && row.speedup_mean > 1;
  const rows = ranked.plain_row ? [...ranked.rows.filter(isFaster), ranked.plain_row, ...ranked.rows.filter((row) => !isFaster(row))] : ranked.rows;
  const family = (row) => (row.drafter_name === 'plain' ? 'plain' : 'other');
  return rows.map((row, place) => ({ family: family(row), look: family(row), place, ...drafters.get(row.drafter_name), ...row }));
}

function speedupScale(rows) {
  const values = rows.flatMap((row) => [row.speedup_mean, row.mean_high]).filter((value) => value !== null);
  const most = Math.max(1.2, ...values);
  return { most, x: (value) => PLOT.pad + (Math.min(value, most) / most) * (PLOT.width - 2 * PLOT.pad) };
}

function intervalPlot(row, scale) {
  const middle = PLOT.height / 2;
  const svg = draw('svg', { class: 'interval', viewBox: `0 0 ${PLOT.width} ${PLOT.height}`, width: PLOT.width, height: PLOT.height, 'aria-hidden': 'true' });
  svg.append(draw('line', { class: 'one', x1: scale.x(1), x2: scale.x(1), y1: 0, y2: PLOT.height }));
  if (row.mean_low !== null) {
    const ends = { x1: scale.x(Math.max(0, row.mean_low)), x2: scale.x(row.mean_high), y1: middle, y2: middle };
    svg.append(draw('line', { class: `whisker line-${row.look}`, ...ends }));
  }
  if (row.speedup_mean !== null) svg.append(mark(row, scale.x(row.speedup_mean), middle, 5));
  return svg;
}

function scalePlot(scale) {
  const svg = draw('svg', { class: 'interval', viewBox: `0 0 ${PLOT.width} 14`, width: PLOT.width, height: 14, 'aria-hidden': 'true' });
  for (const value of ticks(0, scale.most, 5)) {
    svg.append(draw('text', { class: 'tick', x: scale.x(value), y: 11, 'text-anchor': 'middle', text: `${value}×` }));
  }
  return svg;
}

/** Time per token as a part of plain decoding's: drafting, then verifying. */
function timeBar(row) {
  if (row.speedup_ratio === null || !row.total_ms) return make('span', { text: '–' });
  const whole = 1 / row.speedup_ratio;
  const drafting = (whole * row.draft_ms) / row.total_ms;
  const width = 76;
  const most = Math.max(1, whole);
  const parts = [[0, drafting, 'draft'], [drafting, whole - drafting, 'verify']];
  const svg = draw('svg', { class: 'timebar', viewBox: `0 0 ${width} 12`, width, height: 12, 'aria-hidden': 'true' });
  svg.append(draw('rect', { class: 'whole', x: 0, y: 0, width: width / most, height: 12 }));
  for (const [begin, length, kind] of parts) {
    svg.append(draw('rect', { class: kind, x: (begin / most) * width, y: 0, width: (length / most) * width, height: 12 }));
  }
  const text = `${(100 * whole).toFixed(0)} %`;
  const title = `${(100 * drafting).toFixed(1)} % drafting, ${(100 * (whole - drafting)).toFixed(1)} % verifying`;
  return make('span', { class: 'with-bar', title }, svg, text);
}

function standing(row) {
  const isSaid = row.standing && row.standing !== 'behind';
  return isSaid ? make('span', { class: `badge ${row.standing}`, text: row.standing }) : null;
}

function drafterCell(row) {
  const name = make('code', { text: row.drafter_name });
  // The standing stands below the name: beside it, a table of all columns would be wider than the page.
  const kind = make('span', { class: 'kind' }, FAMILIES[row.family].title, standing(row));
  return make('span', { class: 'drafter' }, icon(row), make('span', {}, name, kind));
}

function speedupCell(row, scale) {
  const text = row.mean_low === null ? '' : `${row.mean_low.toFixed(2)} to ${row.mean_high.toFixed(2)}`;
  return make('span', { class: 'speedup' }, intervalPlot(row, scale), make('span', {}, make('b', { text: times(row.speedup_mean) }), make('small', { text })));
}

const share = (part, whole) => (whole ? `${part}/${whole}` : '–');

/** The columns that these rows can fill. */
function rankingColumns(rows) {
  const has = (name) => rows.some((row) => row[name] !== null && row[name] !== undefined);
  return [
    { key: 'rank', title: '#', value: (row) => row.place, cell: (row) => row.rank ?? '–' },
    { key: 'drafter', title: 'Drafter', value: (row) => row.drafter_name, cell: drafterCell, class: 'left' },
    { key: 'speedup', title: 'Speedup', help: "Mean of the questions' speedups over plain decoding, with its 95 % interval", value: (row) => row.speedup_mean, cell: speedupCell, class: 'left plot-head', descends: true },
    { key: 'ratio', title: 'Ratio of sums', help: 'What all questions together gain', value: (row) => row.speedup_ratio, cell: (row) => times(row.speedup_ratio), descends: true, hidden: !has('speedup_ratio') },
    { key: 'even', title: 'Breaks even at', help: 'Tokens a round, the bonus included, that would make it as fast as plain decoding at this load', value: (row) => row.break_even_len, cell: (row) => fixed(row.break_even_len), hidden: !has('break_even_len') },
    { key: 'time', title: 'Time', help: "Time per token, plain decoding's being 100 %", value: (row) => (row.speedup_ratio ? 1 / row.speedup_ratio : null), cell: timeBar, class: 'left', hidden: !has('speedup_ratio') },
    { key: 'ceiling', title: 'Of the ceiling', help: 'How near it comes to the clairvoyant choice of drafter and draft length', value: (row) => row.ceiling_share, cell: (row) => percent(row.ceiling_share), descends: true, hidden: !has('ceiling_share') },
    { key: 'acceptance', title: 'Accepted', help: 'Accepted / drafted tokens', value: (row) => row.acceptance_rate, cell: (row) => percent(row.acceptance_rate), descends: true },
    { key: 'length', title: 'Tokens a round', help: "The target's own token (the bonus) included", value: (row) => row.acceptance_len, cell: (row) => fixed(row.acceptance_len), descends: true },
    { key: 'passes', title: 'Passes a round', help: "The drafter's forward passes", value: (row) => row.passes_per_round, cell: (row) => fixed(row.passes_per_round) },
    { key: 'correct', title: 'Correct', help: 'Answers graded right / graded', value: (row) => (row.num_graded ? row.num_correct / row.num_graded : null), cell: (row) => share(row.num_correct, row.num_graded), descends: true, hidden: !rows.some((row) => row.num_graded) },
    { key: 'degenerate', title: 'Loops', help: 'Outputs that are mostly one loop, which inflates acceptance', value: (row) => row.num_degenerate, cell: (row) => share(row.num_degenerate, row.num_checked) },
  ].filter((column) => !column.hidden);
}

/** Shows the rows that pass the filters, in the order asked for, and says how many. */
function showRanking(table, rows, state, onSort) {
  const columns = rankingColumns(rows);
  const scale = speedupScale(rows);
  const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
  const passes = (row) => state.families.has(row.family) && words.every((word) => `${row.drafter_name} ${FAMILIES[row.family].title}`.toLowerCase().includes(word));
  const chosen = columns.find((column) => column.key === state.sort.key) ?? columns[0];
  const shown = sorted(rows.filter(passes), chosen.value, state.sort.descending);
  const heads = columns.map((column) => sortHead(column, state.sort, onSort, column.key === 'speedup' ? scalePlot(scale) : null));
  const body = shown.map((row) => make('tr', { class: row.rank === 1 ? 'first' : null, 'data-drafter': row.drafter_name },
    ...columns.map((column) => make('td', { class: column.class ?? null }, column.cell(row, scale)))));
  rebuilding(table, () => table.replaceChildren(make('thead', {}, make('tr', {}, ...heads)), make('tbody', {}, ...body)));
  const count = (some) => some.filter((row) => row.family !== 'plain').length;
  byId('ranking-count').textContent = `${count(shown)} of ${plural(count(rows), 'configuration')}.`;
  return shown;
}
