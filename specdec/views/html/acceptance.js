// One drafter closer: acceptance by position, the histogram of accepted tokens, and its lengths and times.

const whole = (rate) => `${Math.round(100 * rate)} %`;

/** Shows the drafter that is chosen in `select`, the best one where none is; hides all where no rounds are known. */
function showDrafter(section, select, scope, state) {
  const rows = state.rows.filter((row) => row.rank !== null && scope.acceptance[row.drafter_name]);
  section.hidden = !rows.length;
  if (!rows.length) return;
  const row = rows.find((one) => one.drafter_name === state.drafter) ?? rows[0];
  select.replaceChildren(...rows.map((one) => make('option', { value: one.drafter_name, selected: one === row, text: `${FAMILIES[one.family].title}: ${one.drafter_name}` })));
  const found = scope.acceptance[row.drafter_name];
  byId('drafter-facts').replaceChildren(...drafterFacts(row, found).map(([value, text]) => make('span', {}, make('b', { text: value }), ` ${text}`)));
  acceptanceFigure(byId('acceptance-figure'), row, found);
  positionTable(byId('acceptance-table'), found);
}

function drafterFacts(row, found) {
  const ms = (value) => `${value.toFixed(2)} ms`;
  const facts = [[fixed(row.acceptance_len), 'tokens a round, bonus included, of all rounds together'], [fixed(row.request_acceptance_len), "mean of the questions'"]];
  if (row.tpot_ms !== null) facts.push([ms(row.tpot_ms), 'a token (TPOT)']);
  if (row.ttft_ms !== null) facts.push([ms(row.ttft_ms), 'to the first token (TTFT)']);
  return [...facts, [`${found.num_drafts}/${found.num_rounds}`, 'rounds with a draft'], ...row.facts];
}

function acceptanceFigure(figure, row, found) {
  const last = Math.max(1, found.unconditional.length);
  const { svg, x, y } = axes({
    width: 560, height: 300, xs: [0.5, last + 0.5], ys: [0, 1], yText: whole, isWhole: true,
    xTitle: 'position in the draft (tokens)', yTitle: 'accepted', label: `Acceptance by position, ${row.drafter_name}`,
  });
  const width = 0.72 * (x(2) - x(1));
  found.unconditional.forEach((rate, index) => {
    const bar = draw('rect', { class: `soft mark-${row.look}`, x: x(index + 1) - width / 2, width, y: y(rate), height: y(0) - y(rate) });
    bar.append(draw('title', { text: `position ${index + 1}: ${percent(rate)} of all drafts were accepted up to here` }));
    svg.append(bar);
  });
  svg.append(draw('polyline', { class: `line line-${row.look}`, points: found.conditional.map((rate, index) => `${x(index + 1)},${y(rate)}`).join(' ') }));
  found.conditional.forEach((rate, index) => svg.append(mark(row, x(index + 1), y(rate), 3.5, `position ${index + 1}: ${percent(rate)} of the ${found.num_reached_at[index]} drafts that came here were accepted here`)));
  const bar = draw('svg', { class: 'icon', viewBox: '0 0 14 14', width: 14, height: 14, 'aria-hidden': 'true' }, draw('rect', { class: `soft mark-${row.look}`, x: 1, y: 3, width: 12, height: 10 }));
  show(figure, svg, make('ul', { class: 'key-list' }, make('li', {}, bar, 'of all drafts (unconditional)'), make('li', {}, icon(row), 'of those accepted up to the token before (conditional)')));
}

function positionTable(table, found) {
  const heads = ['Accepted', 'Rounds', 'Came to it', 'Unconditional', 'Conditional'];
  const last = Math.max(found.unconditional.length, found.histogram.length - 1);
  const body = Array.from({ length: last + 1 }, (_, position) => [
    position, found.histogram[position] ?? 0, found.num_reached_at[position - 1] ?? '–',
    percent(found.unconditional[position - 1]), percent(found.conditional[position - 1]),
  ]);
  table.replaceChildren(
    make('thead', {}, make('tr', {}, ...heads.map((text) => make('th', { scope: 'col', text })))),
    make('tbody', {}, ...body.map((cells) => make('tr', {}, ...cells.map((text) => make('td', { text }))))),
  );
}
