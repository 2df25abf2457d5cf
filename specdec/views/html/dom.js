// The report's data, elements, numbers as text, and the one store of what is shown. Text only ever goes into the page as text.

const SVG = 'http://www.w3.org/2000/svg';
const byId = (id) => document.getElementById(id);
const report = JSON.parse(byId('data').textContent);

/** An element. `props`: attributes; `text`, `class` and `on: {event: handler}` are what they say. */
function make(tag, props = {}, ...children) {
  return furnish(document.createElement(tag), props, children);
}

function draw(tag, props = {}, ...children) {
  return furnish(document.createElementNS(SVG, tag), props, children);
}

function furnish(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === 'text') element.textContent = value;
    else if (name === 'on') for (const [event, handler] of Object.entries(value)) element.addEventListener(event, handler);
    else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const times = (value) => (value === null || value === undefined ? '–' : `${value.toFixed(2)}×`);
const percent = (value) => (value === null || value === undefined ? '–' : `${(100 * value).toFixed(1)} %`);
const fixed = (value) => (value === null || value === undefined ? '–' : value.toFixed(2));
const signed = (value) => (value < 0 ? `−${Math.abs(value).toFixed(2)}` : value.toFixed(2)).replace('−0.00', '0.00');
const plural = (count, word) => `${count} ${word}${count === 1 ? '' : 's'}`;

/** Round steps that cut `low..high` into about `count` parts, as a list of values within it. */
function ticks(low, high, count) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((value) => value >= raw);
  const found = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-6; value += step) {
    found.push(Math.abs(value) < step * 1e-6 ? 0 : value);
  }
  return found;
}

/** A table's head cell whose button sorts by `column`, and says how it is sorted. */
function sortHead(column, sort, onSort, ...more) {
  const isSorted = sort.key === column.key;
  const direction = isSorted ? (sort.descending ? 'descending' : 'ascending') : 'none';
  const mark = make('span', { class: 'sort-mark', 'aria-hidden': 'true', text: isSorted ? (sort.descending ? '▾' : '▴') : '' });
  const button = make('button', { type: 'button', title: column.help, 'data-sort': column.key, on: { click: () => onSort(column) } });
  button.append(column.title, mark);
  return make('th', { scope: 'col', 'aria-sort': direction, class: column.class }, button, ...more);
}

/** Sorts as a reader expects who has clicked `column`: its natural order first, then the other way round. */
function nextSort(sort, column) {
  if (sort.key === column.key) return { key: column.key, descending: !sort.descending };
  return { key: column.key, descending: Boolean(column.descends) };
}

/** A copy sorted by `value`; what has no value comes last either way. */
function sorted(items, value, descending) {
  const sign = descending ? -1 : 1;
  const isMissing = (one) => one === null || one === undefined;
  return [...items].sort((left, right) => {
    const [a, b] = [value(left), value(right)];
    if (isMissing(a) || isMissing(b)) return isMissing(a) - isMissing(b);
    return sign * (typeof a === 'string' ? a.localeCompare(b, 'en', { numeric: true }) : a - b);
  });
}

/** Rebuilds a part of the page without losing the keyboard's place in it. */
function rebuilding(element, build) {
  const key = element.contains(document.activeElement) ? document.activeElement.dataset.sort : undefined;
  build();
  if (key !== undefined) element.querySelector(`[data-sort="${CSS.escape(key)}"]`)?.focus();
}
