// The trajectories of a single question, two drafters side by side on the same text. Unpacked when it is opened.

async function unpackQuestion(index) {
  const letters = atob(byId(`question-${index}`).textContent);
  const bytes = Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
  const question = JSON.parse(await new Response(stream).text());
  return { ...question, unpacked: unpackRuns(question) };
}

class Trajectories {
  constructor(report, state) {
    this.report = report;
    this.state = state;
    this.dialog = byId('trajectory');
    this.chosen = []; // drafters, by panel; they stay from question to question
    this.views = [];
    this.opening = 0;
    byId('close-question').addEventListener('click', () => this.dialog.close());
    byId('previous-question').addEventListener('click', () => this.open(this.index - 1));
    byId('next-question').addEventListener('click', () => this.open(this.index + 1));
    byId('show-rejected').addEventListener('change', (event) => this.dialog.classList.toggle('clean', !event.target.checked));
    byId('show-shade').addEventListener('change', (event) => this.dialog.classList.toggle('unshaded', !event.target.checked));
    this.dialog.addEventListener('close', () => this.closed());
    byId('trajectory-legend').append(...legendParts());
  }

  async open(index) {
    const turn = ++this.opening;
    this.index = index;
    const summary = this.report.questions[index];
    byId('trajectory-title').replaceChildren(make('bdi', { text: summary.dataset }), ` ${summary.name}: `, make('bdi', { text: summary.title }));
    byId('previous-question').disabled = index === 0;
    byId('next-question').disabled = index === this.report.questions.length - 1;
    byId('trajectory-state').textContent = 'Unpacking…';
    byId('panels').replaceChildren();
    if (!this.dialog.open) this.dialog.showModal();
    history.replaceState(null, '', `#question-${index}`);
    try {
      const question = await unpackQuestion(index);
      if (turn === this.opening) this.show(question);
    } catch (error) {
      byId('trajectory-state').textContent = `This question cannot be unpacked here (${error.message}); a newer browser can.`;
    }
  }

  closed() {
    this.opening += 1;
    history.replaceState(null, '', '#questions');
    byId('panels').replaceChildren();
    document.querySelector(`[data-question="${this.index}"]`)?.focus();
  }

  show(question) {
    this.question = question;
    byId('trajectory-state').textContent = '';
    const row = byId('asked');
    row.querySelector('summary').textContent = 'The question';
    row.querySelector('dl').replaceChildren(...question.row.flatMap(([name, value]) => [make('dt', { text: name }), make('dd', { text: value })]));
    const names = this.report.drafters.filter((drafter) => question.unpacked.has(drafter.name)).map((drafter) => drafter.name);
    this.panels = this.startingDrafters(names).map((name, side) => this.panel(names, name, side));
    byId('panels').replaceChildren(...this.panels.map((panel) => panel.element));
    this.views.length = this.panels.length;
    this.panels.forEach((panel, side) => this.fill(side, this.chosen[side]));
    this.choose(0, 0);
    this.views[0].text.focus({ preventScroll: true });
  }

  /** Those of the last question where this one has them; else the best one, and the best of another kind. */
  startingDrafters(names) {
    const ranked = this.state.rows.map((row) => row.drafter_name).filter((name) => names.includes(name));
    const order = [...new Set([...ranked, ...names])];
    const family = (name) => this.report.drafters.find((drafter) => drafter.name === name).family;
    const [first] = order;
    const second = order.find((name) => name === this.state.baseline && name !== first) ?? order.find((name) => family(name) !== family(first)) ?? order[1];
    const wanted = [first, second].filter((name) => name !== undefined);
    this.chosen = wanted.map((name, side) => (names.includes(this.chosen[side]) ? this.chosen[side] : name));
    return this.chosen;
  }

  panel(names, name, side) {
    const select = make('select', { 'aria-label': `Drafter ${side + 1}`, on: { change: (event) => this.switchTo(side, event.target.value) } });
    select.append(...names.map((one) => make('option', { value: one, text: one, selected: one === name })));
    const facts = make('span', { class: 'panel-facts' });
    const element = make('section', { class: 'panel', 'aria-label': `Drafter ${side + 1}` }, make('div', { class: 'panel-head' }, select, facts));
    return { element, facts };
  }

  switchTo(side, name) {
    this.chosen[side] = name;
    const view = this.views[side];
    const place = view.rounds.length ? view.rounds[view.current].begin : 0;
    this.fill(side, name);
    if (this.views[side].rounds.length) this.views[side].mark(this.views[side].roundAt(place));
  }

  fill(side, name) {
    const { look } = this.report.drafters.find((drafter) => drafter.name === name);
    const view = new RoundView(this.question, name, look, (index) => this.choose(side, index));
    this.views[side]?.element.remove();
    this.views[side] = view;
    this.panels[side].facts.replaceChildren(...this.factsOf(name));
    this.panels[side].element.append(view.element);
  }

  factsOf(name) {
    const summary = this.report.questions[this.index];
    const result = summary.results[this.report.drafters.findIndex((drafter) => drafter.name === name)];
    if (!result) return [];
    const [speedups, , rounds, accepted, drafted, passes] = result;
    const speedup = speedups[this.state.engineIndex];
    const facts = [make('b', { text: speedup === null || name === 'plain' ? '' : times(speedup) }), plural(rounds, 'round')];
    if (drafted) facts.push(`${accepted} of ${drafted} accepted`, `${passes} passes`);
    const { answer } = this.question.unpacked.get(name);
    const shared = answer.findIndex((token, place) => token !== this.question.answer[place]);
    if (answer !== this.question.answer) facts.push(`text differs from token ${shared < 0 ? answer.length : shared} on`);
    return facts.map((fact) => (typeof fact === 'string' ? make('span', { text: fact }) : fact));
  }

  /** Marks a round in one panel, and in the others the round that wrote the same token. */
  choose(side, index) {
    const view = this.views[side];
    if (!view?.rounds.length) return;
    view.mark(index);
    this.views.forEach((other, place) => {
      if (place !== side && other.rounds.length) other.mark(other.roundAt(view.rounds[index].begin));
    });
  }
}

function legendParts() {
  const scale = make('span', { class: 'shades' }, ...[...'0123456789'].map((digit) => make('span', { class: `t c${digit}`, text: ' ' })));
  return [
    make('span', { class: 'sample' }, make('span', { class: 't c8', text: 'accepted' })),
    make('span', { class: 'sample' }, make('del', {}, make('span', { class: 't c5', text: 'rejected' }))),
    make('span', { class: 'sample' }, make('ins', { text: 'correction' }), " (the target's, in its place)"),
    make('span', { class: 'sample' }, make('span', { class: 'bonus', text: 'bonus' }), " (the target's, after a whole draft)"),
    make('span', { class: 'sample' }, "drafter's confidence 0 ", scale, ' 1'),
    make('span', { class: 'sample', text: 'ruler: a bar a round, accepted up, rejected down' }),
    make('span', { class: 'sample' }, make('kbd', { text: '←' }), make('kbd', { text: '→' }), ' round by round'),
  ];
}
