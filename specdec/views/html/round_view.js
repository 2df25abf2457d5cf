// One drafter's way through one answer: a ruler of rounds over the text, token by token.

/** A packed question's runs by drafter: their rounds, each with its tokens. `sure`: "0".."9", "-" for unknown. */
function unpackRuns(question) {
  const runs = new Map();
  const columns = question.rounds;
  let [row, rejected, drafted] = [0, 0, 0];
  for (const { name, num_rounds: count, answer = question.answer } of question.runs) {
    const rounds = [];
    for (let place = 0, end = row + count; row < end; row += 1) {
      const numAccepted = columns.accepted[row];
      const numDrafted = numAccepted + columns.rejected[row];
      const emitted = numAccepted + columns.own[row];
      rounds.push({
        begin: place,
        accepted: answer.slice(place, place + numAccepted),
        rejected: question.rejected.slice(rejected, rejected + columns.rejected[row]),
        own: columns.own[row] ? answer[place + numAccepted] : null,
        sure: question.sure.slice(drafted, drafted + numDrafted),
        emitted,
        passes: columns.passes[row],
        stop: question.stops[columns.stop[row]],
        draftMs: columns.draft_ms[row] / 10,
        verifyMs: columns.verify_ms[row] / 10,
      });
      place += emitted;
      rejected += columns.rejected[row];
      drafted += numDrafted;
    }
    runs.set(name, { rounds, answer });
  }
  return runs;
}

const STOPS = {
  length: 'fixed length', low_confidence: 'low confidence', max_len: 'longest draft', stop_token: 'stop token',
  low_gain: 'more would not pay', none: 'nothing to draft',
};

function describeRound(round, index, count) {
  const own = round.own === null ? '' : round.rejected.length ? ', then a correction' : ', then a bonus';
  const drafted = round.accepted.length + round.rejected.length;
  const what = drafted ? `drafted ${drafted}, accepted ${round.accepted.length}${own}` : "the target's own token";
  const stop = drafted ? `; ${plural(round.passes, 'pass').replace('passs', 'passes')}, stopped by ${STOPS[round.stop] ?? round.stop}` : '';
  const time = round.draftMs || round.verifyMs ? `; ${round.draftMs} ms drafting, ${round.verifyMs} ms verifying` : '';
  return `Round ${index + 1} of ${count}: ${what}${stop}${time}`;
}

/** Turns token indices into elements. Rejected line breaks are shown by a sign: they break no line of the answer. */
class TokenMaker {
  constructor(question) {
    this.texts = question.texts;
    this.special = new Set(question.special);
    this.bytes = new Set(question.bytes);
  }

  token(index, sure, isRejected) {
    const text = isRejected ? this.texts[index].replaceAll('\n', '⏎').replaceAll('\t', '⇥') : this.texts[index];
    const isPart = this.bytes.has(index);
    const shade = sure === '-' || sure === undefined ? '' : ` c${sure}`;
    const token = document.createElement('span');
    token.className = `t${shade}${isPart ? ' part' : ''}${this.special.has(index) ? ' special' : ''}`;
    token.textContent = text;
    if (isPart) token.title = 'a part of a character, in bytes';
    return token;
  }

  round(round, index) {
    const element = make('span', { class: 'round', 'data-round': index });
    round.accepted.forEach((token, place) => element.append(this.token(token, round.sure[place], false)));
    if (round.rejected.length) {
      const gone = make('del', {});
      round.rejected.forEach((token, place) => gone.append(this.token(token, round.sure[round.accepted.length + place], true)));
      element.append(gone);
    }
    if (round.own !== null) {
      const isDrafted = round.accepted.length + round.rejected.length > 0;
      const own = this.token(round.own, undefined, false);
      element.append(round.rejected.length ? make('ins', {}, own) : make('span', { class: isDrafted ? 'bonus' : 'alone' }, own));
    }
    return element;
  }
}

/** The ruler: a bar per round, as wide as the tokens it emitted; up the accepted ones, down the rejected ones. */
function ruler(rounds, look) {
  const total = Math.max(1, rounds.reduce((sum, round) => sum + round.emitted, 0));
  const most = Math.max(1, ...rounds.map((round) => Math.max(round.accepted.length, round.rejected.length)));
  const gap = total / 1400;
  const svg = draw('svg', { class: `bars line-${look}`, viewBox: `0 -1 ${total} 2`, preserveAspectRatio: 'none', 'aria-hidden': 'true' });
  rounds.forEach((round, index) => {
    const group = draw('g', { 'data-round': index });
    const place = { x: round.begin, width: Math.max(gap, round.emitted - gap) };
    group.append(draw('rect', { class: 'hit', x: round.begin, width: round.emitted, y: -1, height: 2 }));
    group.append(draw('rect', { class: 'up', ...place, y: -round.accepted.length / most, height: round.accepted.length / most }));
    group.append(draw('rect', { class: 'down', ...place, y: 0, height: round.rejected.length / most }));
    svg.append(group);
  });
  const scale = make('div', { class: 'scale', 'aria-hidden': 'true' });
  for (const value of ticks(0, total, 6)) {
    const label = make('span', { text: value });
    label.style.left = `${(100 * value) / total}%`;
    scale.append(label);
  }
  return make('div', { class: 'ruler' }, svg, scale);
}

/** One panel's content: draws rounds, marks the current one, tells `onChoose(round index)` of the reader's choice. */
class RoundView {
  constructor(question, name, look, onChoose) {
    this.rounds = question.unpacked.get(name).rounds;
    this.onChoose = onChoose;
    this.current = 0;
    const maker = new TokenMaker(question);
    this.ruler = ruler(this.rounds, look);
    this.text = make('div', { class: 'answer', tabindex: 0, role: 'group', 'aria-label': `Answer by ${name}; arrow keys go through its rounds` });
    this.text.append(...this.rounds.map((round, index) => maker.round(round, index)));
    this.info = make('p', { class: 'info', role: 'status' });
    this.element = make('div', { class: 'view' }, this.ruler, this.info, this.text);
    this.ruler.addEventListener('click', (event) => this.clicked(event));
    this.text.addEventListener('click', (event) => this.clicked(event));
    this.text.addEventListener('keydown', (event) => this.pressed(event));
  }

  clicked(event) {
    const found = event.target.closest('[data-round]');
    if (found) this.onChoose(Number(found.dataset.round));
  }

  pressed(event) {
    const last = this.rounds.length - 1;
    const places = { ArrowRight: this.current + 1, ArrowLeft: this.current - 1, Home: 0, End: last };
    if (!(event.key in places) || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    this.onChoose(Math.max(0, Math.min(last, places[event.key])));
  }

  /** The round that wrote the answer's token `place`. */
  roundAt(place) {
    const after = this.rounds.findIndex((round) => round.begin > place);
    return after < 0 ? this.rounds.length - 1 : Math.max(0, after - 1);
  }

  mark(index) {
    if (!this.rounds.length) return;
    for (const part of [this.text, this.ruler]) {
      part.querySelector('.current')?.classList.remove('current');
      part.querySelector(`[data-round="${index}"]`).classList.add('current');
    }
    this.current = index;
    this.info.textContent = describeRound(this.rounds[index], index, this.rounds.length);
    const [box, line] = [this.text.getBoundingClientRect(), this.text.querySelector('.current').getBoundingClientRect()];
    if (line.top < box.top || line.bottom > box.bottom) this.text.scrollTop += line.top - box.top - box.height / 3;
  }
}
