// The list of questions: each with its grades and a strip of all drafters' speedups; opens trajectories.

const STRIP = { width: 200, height: 22, pad: 8 };

/** {name, family, look, speedup} of every drafter on a question, best first. */
function speedupsOf(question, report, engineIndex) {
  const found = report.drafters
    .map((drafter, index) => ({ ...drafter, speedup: question.results[index]?.[0][engineIndex] ?? null }))
    .filter((one) => one.speedup !== null && one.family !== 'plain');
  return sorted(found, (one) => one.speedup, true);
}

function strip(speedups, most) {
  const middle = STRIP.height / 2;
  const x = (value) => STRIP.pad + (value / most) * (STRIP.width - 2 * STRIP.pad);
  const svg = draw('svg', { class: 'strip', viewBox: `0 0 ${STRIP.width} ${STRIP.height}`, width: STRIP.width, height: STRIP.height, 'aria-hidden': 'true' });
  svg.append(draw('line', { class: 'grid', x1: x(0), x2: x(most), y1: middle, y2: middle }));
  svg.append(draw('line', { class: 'one', x1: x(1), x2: x(1), y1: 3, y2: STRIP.height - 3 }));
  // One path per family: a page of many questions stays light.
  for (const family of new Set(speedups.map((one) => one.family))) {
    const places = speedups.filter((one) => one.family === family).map((one) => `M${x(one.speedup).toFixed(1)} ${middle}h0`);
    svg.append(draw('path', { class: `dots line-${family}`, d: places.join('') }));
  }
  return svg;
}

function gradeCell(question) {
  const grade = !question.num_graded ? null
    : question.num_correct === question.num_graded ? ['right', 'good']
      : question.num_correct === 0 ? ['wrong', 'bad'] : [`${question.num_correct}/${question.num_graded} right`, 'mixed'];
  return make('span', { class: 'badges' },
    grade ? make('span', { class: `badge ${grade[1]}`, text: grade[0] }) : '–',
    question.num_degenerate ? make('span', { class: 'badge mixed', text: 'loops' }) : null);
}

function questionColumns(report, most, open, hasTimes) {
  const isMixed = new Set(report.questions.map((question) => question.dataset)).size > 1;
  const name = (item) => (isMixed ? `${item.question.dataset} ${item.question.name}` : item.question.name);
  return [
    { key: 'id', title: '#', value: (item) => item.index, cell: name },
    {
      key: 'title', title: 'Question', class: 'left wide', value: (item) => item.question.title,
      cell: (item) => make('button', { type: 'button', class: 'open', 'data-question': item.index, text: item.question.title, on: { click: () => open(item.index) } }),
    },
    { key: 'tokens', title: 'Tokens', value: (item) => item.question.tokens, cell: (item) => item.question.tokens, descends: true },
    { key: 'grade', title: 'Answer', value: (item) => (item.question.num_graded ? item.question.num_correct / item.question.num_graded : null), cell: (item) => gradeCell(item.question), class: 'left', descends: true },
    { key: 'strip', title: 'Speedups', help: 'Sorts by the best', class: 'left', value: (item) => item.speedups[0]?.speedup ?? null, cell: (item) => strip(item.speedups, most), descends: true, hidden: !hasTimes },
    {
      key: 'best', title: 'Best drafter', class: 'left', hidden: !hasTimes, value: (item) => item.speedups[0]?.name ?? null,
      cell: (item) => (item.speedups.length ? make('span', { class: 'drafter' }, icon(item.speedups[0]), make('code', { text: item.speedups[0].name }), make('b', { text: times(item.speedups[0].speedup) })) : '–'),
    },
  ].filter((column) => !column.hidden);
}

function showQuestions(table, report, state, onSort, open) {
  const items = report.questions.map((question, index) => ({ question, index, speedups: speedupsOf(question, report, state.engineIndex) }));
  const most = Math.max(1.2, ...items.map((item) => item.speedups[0]?.speedup ?? 0));
  const columns = questionColumns(report, most, open, items.some((item) => item.speedups.length));
  const words = state.questionFilter.toLowerCase().split(/\s+/).filter(Boolean);
  const set = state.dataSet;
  const isOfSet = (question) => !set || (question.dataset === set.dataset && question.budget === set.max_new_tokens);
  const isAsked = (question) => isOfSet(question) && (!state.category || question.category === state.category.category);
  const passes = ({ question }) => isAsked(question) && words.every((word) => `${question.dataset} ${question.name} ${question.title}`.toLowerCase().includes(word));
  const chosen = columns.find((column) => column.key === state.questionSort.key) ?? columns[0];
  const shown = sorted(items.filter(passes), chosen.value, state.questionSort.descending);
  const heads = columns.map((column) => sortHead(column, state.questionSort, onSort));
  const body = shown.map((item) => make('tr', {}, ...columns.map((column) => make('td', { class: column.class ?? null }, column.cell(item)))));
  rebuilding(table, () => table.replaceChildren(make('thead', {}, make('tr', {}, ...heads)), make('tbody', {}, ...body)));
  byId('question-count').textContent = `${shown.length} of ${plural(items.length, 'question')}.`;
}
