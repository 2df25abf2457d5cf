// The load switch: the ranking at so many requests at a time, as it was simulated. What drafts are does not change with it.

/** "Under load" as one more time to choose, where the report has it. */
function withLoad(report) {
  if (!report.load.loads) return report.engines;
  return [...report.engines, { name: report.load.name, title: report.load.title, isLoad: true, is_measured: false }];
}

/** What a load's ranking is, in the shape of the others; its rows are those of `scope`, with this load's numbers. */
function loadRanking(report, load, scope) {
  if (scope !== report.ranking) return undefined; // simulated for all questions together
  const all = report.ranking.engines.flatMap((engine) => [...engine.rows, ...(engine.plain_row ? [engine.plain_row] : [])]);
  const known = new Map(all.reverse().map((row) => [row.drafter_name, row])); // of the first time that has it
  const none = { speedup_ratio: null, ceiling_share: null, tpot_ms: null, ttft_ms: null, to_best_value: null };
  const made = load.rows.map(([name, standing, speedup, low, high, even]) => ({
    ...known.get(name), ...none, drafter_name: name, rank: null, standing, speedup_mean: speedup, mean_low: low, mean_high: high, break_even_len: even,
  }));
  const rows = made.filter((row) => row.drafter_name !== 'plain');
  rows.forEach((row, index) => { row.rank = index + 1; });
  return {
    headline: load.headline, over: report.load.over, too_few: '', ar_baseline: null,
    rows, plain_row: made.find((row) => row.drafter_name === 'plain') ?? null,
  };
}

function buildLoads(report, state, refresh) {
  const note = report.load.why ?? report.load.advice.join(' ');
  byId('load-note').replaceChildren(...(report.load.loads ? [make('b', { text: `Under load, ${report.load.name}: ` })] : []), note);
  byId('loads').replaceChildren(...(report.load.loads ?? []).map((load, index) => {
    const input = make('input', { type: 'radio', name: 'load', value: load.value, checked: index === 0, on: { change: () => { state.loadIndex = index; refresh(); } } });
    return make('label', {}, input, make('span', { text: load.value }));
  }));
}
