// The page: reads the data, keeps what the reader has chosen, and shows it.

const state = {
  engineIndex: 0,
  loadIndex: 0, // how many requests at a time, from report.load.loads, where that is the time that is shown
  scopeIndex: null, // which data set; null: all together
  dataSet: null, // the data set itself
  category: null, // which category of it, from report.categories; null: all
  drafter: null, // whose details are shown; null: the best one's
  rows: [],
  baseline: null, // the best static AR drafter's name
  filter: '',
  families: new Set(['plain', ...report.drafters.map((drafter) => drafter.family)]),
  sort: { key: 'rank', descending: false },
  questionFilter: '',
  questionSort: { key: 'id', descending: false },
};
const engines = withLoad(report);
const trajectories = new Trajectories(report, state);

function refresh() {
  const engine = engines[state.engineIndex];
  state.dataSet = state.scopeIndex === null ? null : report.ranking.data_sets[state.scopeIndex];
  const scope = state.category ?? state.dataSet ?? report.ranking;
  byId('at-a-time').hidden = !engine.isLoad;
  const ranked = engine.isLoad ? loadRanking(report, report.load.loads[state.loadIndex], scope) : scope.engines.find((one) => one.engine === engine.name);
  state.rows = rankedRows(report, ranked);
  state.baseline = ranked ? ranked.ar_baseline : null;
  showHeadline(engine, ranked, scope);
  refreshRanking();
  positionFigure(byId('position-figure'), state.category?.position ?? report.positions[state.scopeIndex] ?? report.position, state.rows);
  showDrafter(byId('drafter'), byId('drafter-choice'), scope, state);
  refreshQuestions();
}

function refreshRanking() {
  const shown = showRanking(byId('ranking-table'), state.rows, state, (column) => {
    state.sort = nextSort(state.sort, column);
    refreshRanking();
  });
  passesFigure(byId('passes-figure'), sorted(shown, (row) => row.rank, false));
}

function refreshQuestions() {
  showQuestions(byId('question-table'), report, state, (column) => {
    state.questionSort = nextSort(state.questionSort, column);
    refreshQuestions();
  }, (index) => trajectories.open(index));
}

function showHeadline(engine, ranked, scope) {
  const best = state.rows.find((row) => row.rank === 1);
  if (!best || !ranked.headline) {
    byId('headline').textContent = 'Nothing can be ranked by this time';
    byId('lede').textContent = engine.title;
    byId('cards').replaceChildren();
    return;
  }
  byId('headline').replaceChildren(ranked.headline.before, make('em', { class: `ink-${best.look}`, text: times(best.speedup_mean) }), ranked.headline.after);
  const interval = best.mean_low === null ? '' : `, 95 % interval ${best.mean_low.toFixed(2)} to ${best.mean_high.toFixed(2)}`;
  const more = [ranked.too_few, engine.isLoad ? '' : report.ranking.profiles].filter(Boolean).map((text) => ` ${text}`).join('');
  byId('lede').replaceChildren(make('code', { text: best.drafter_name }), ` over ${ranked.over}${scopeText(scope)}${interval}. ${engine.title}.${more}`);
  byId('cards').replaceChildren(...cards(best));
}

function card(value, title, more) {
  return make('div', { class: 'card' }, make('b', { text: value }), make('span', { text: title }), make('small', { text: more }));
}

function cards(best) {
  const baseline = state.rows.find((row) => row.drafter_name === state.baseline);
  const lossless = report.ranking.losslessness;
  const judged = Object.values(lossless).reduce((sum, count) => sum + count, 0);
  const found = [card(`${fixed(best.acceptance_len)}`, 'tokens a round', `for ${fixed(best.passes_per_round)} drafter passes; ${percent(best.acceptance_rate)} of drafts accepted`)];
  if (best.ceiling_share !== undefined && best.ceiling_share !== null) found.push(card(percent(best.ceiling_share), 'of the ceiling', 'the clairvoyant choice of drafter and draft length'));
  if (best.break_even_len) found.push(card(fixed(best.break_even_len), 'tokens a round to break even', 'at this load: where more is accepted, it is faster than plain decoding'));
  if (baseline && baseline !== best) found.push(card(times(baseline.speedup_mean), 'best static AR drafter', `${baseline.drafter_name}${behind(baseline)}`));
  if (judged) found.push(card(`${lossless.exact}/${judged}`, "outputs equal plain decoding's", `${lossless.tie} part at a tie, ${lossless.bug} by a bug, ${lossless.different} not judged`));
  if (best.num_graded) found.push(card(`${best.num_correct}/${best.num_graded}`, 'answers right', `${best.num_degenerate} of ${best.num_checked} are mostly one loop`));
  return found;
}

function behind(row) {
  if (row.to_best_value === null || row.to_best_value === undefined) return '';
  // Less the best becomes behind the best: the value and both ends change their sign, and the ends their places.
  return `, ${signed(-row.to_best_value)}× behind (${signed(-row.to_best_high)} to ${signed(-row.to_best_low)})`;
}

/** What a ranking of one data set is over, in words; nothing where it is all that there is. */
function scopeText(scope) {
  const category = scope === state.category ? `, category ${categoryName(scope)}` : '';
  const set = category ? state.dataSet : scope;
  if (set && set !== report.ranking) return ` of ${set.dataset}, up to ${set.max_new_tokens} tokens${category}`;
  return `${report.ranking.data_sets.length ? ' of all data sets together' : ''}${category}`;
}

const categoryName = (one) => one.category || 'none';

/** The categories of the data set that is shown, as choices; hidden where there are none. */
function buildCategories() {
  state.category = null;
  const found = report.categories.filter((one) => one.scope === state.scopeIndex);
  const options = found.map((one, index) => make('option', { value: index, text: categoryName(one) }));
  const select = byId('category');
  select.replaceChildren(make('option', { value: '', text: 'all' }), ...options);
  select.onchange = () => { state.category = found[select.value] ?? null; refresh(); };
  byId('categories').hidden = !found.length;
}

function buildScopes() {
  const found = report.ranking.data_sets;
  const several = (name) => new Set(found.map((one) => one[name])).size > 1;
  const title = (one) => [one.dataset, several('max_new_tokens') ? `${one.max_new_tokens} tokens` : ''].filter(Boolean).join(', ');
  const choices = [[null, 'All together'], ...found.map((one, index) => [index, title(one)])].map(([index, text]) => {
    const input = make('input', { type: 'radio', name: 'scope', value: index ?? 'all', checked: index === null, on: { change: () => { state.scopeIndex = index; buildCategories(); refresh(); } } });
    return make('label', {}, input, make('span', { text }));
  });
  byId('scopes').replaceChildren(...choices);
  byId('scopes').hidden = !found.length;
}

function buildSwitch() {
  const name = (engine) => (engine.is_measured ? 'Measured' : `${engine.isLoad ? 'Under load' : 'Modelled'}: ${engine.name}`);
  const choices = engines.map((engine, index) => {
    const input = make('input', { type: 'radio', name: 'engine', value: index, checked: index === 0, on: { change: () => { state.engineIndex = index; refresh(); } } });
    return make('label', { title: engine.title }, input, make('span', { text: name(engine) }));
  });
  byId('engines').replaceChildren(...choices);
}

function buildChips() {
  const kinds = Object.keys(FAMILIES).filter((family) => family !== 'plain' && state.families.has(family));
  byId('families').replaceChildren(...kinds.map((family) => {
    const input = make('input', { type: 'checkbox', checked: true, value: family, on: { change: (event) => {
      state.families[event.target.checked ? 'add' : 'delete'](family);
      refreshRanking();
    } } });
    return make('label', {}, input, icon({ family, look: family }), FAMILIES[family].title);
  }));
}

function pairs(list, found) {
  list.replaceChildren(...found.map(([name, value]) => make('div', {}, make('dt', { text: name }), make('dd', { text: value }))));
}

function start() {
  pairs(byId('facts'), report.facts);
  pairs(byId('settings'), report.settings);
  byId('made').textContent = `Report of ${report.made.slice(0, 16).replace('T', ' ')} UTC. ${report.lossless}`;
  byId('note').textContent = report.ranking.note;
  byId('note').hidden = !report.ranking.note;
  byId('filter').addEventListener('input', (event) => { state.filter = event.target.value; refreshRanking(); });
  byId('question-filter').addEventListener('input', (event) => { state.questionFilter = event.target.value; refreshQuestions(); });
  byId('drafter-choice').addEventListener('change', (event) => { state.drafter = event.target.value; refresh(); });
  byId('scope').textContent = report.scope;
  buildSwitch();
  buildLoads(report, state, refresh);
  buildScopes();
  buildCategories();
  buildChips();
  refresh();
  const asked = /^#question-(\d+)$/.exec(location.hash);
  if (asked && Number(asked[1]) < report.questions.length) trajectories.open(Number(asked[1]));
}

start();
