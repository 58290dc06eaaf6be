/* The second pass of slot attention, computed in the page, under the reader's hands.
 *
 * data.js holds, of five images, what the pass starts from, and the weights that it needs (tests/live_export.py).
 * Equation numbers are those of topdown.model.slot_attention and topdown.model.modulation. Arrays are flat and row by
 * row: K slots, N patches, C channels (as many as a slot is wide).
 */
'use strict';

(() => {
  const EPS = 1e-8;

  // ------------------------------------------------------------------------------------------------ numbers

  function fromHalf(bits) {
    const exponent = (bits >> 10) & 31;
    const size = exponent ? 2 ** (exponent - 25) * (1024 + (bits & 1023)) : 2 ** -24 * (bits & 1023);
    return bits & 0x8000 ? -size : size;
  }

  /** Base64 of little-endian float16 -> Float32Array. */
  function unpack(text) {
    const bytes = atob(text);
    return Float32Array.from({ length: bytes.length / 2 }, (_, i) =>
      fromHalf(bytes.charCodeAt(2 * i) | (bytes.charCodeAt(2 * i + 1) << 8)));
  }

  /** What data.js holds, with arrays in place of texts. */
  function unpackAll(data) {
    const arrays = (texts, names) => Object.fromEntries(names.map((name) => [name, unpack(texts[name])]));
    return {
      ...data,
      model: arrays(data.model, Object.keys(data.model)),
      images: data.images.map((image) => ({
        ...image, ...arrays(image, ['keys', 'values', 'start', 'first', 'second']),
      })),
    };
  }

  /** Rows x (R, inner) times weight (outer, inner), as torch keeps it, plus bias: (R, outer). */
  function linear(x, weight, inner, bias) {
    const outer = weight.length / inner;
    const out = new Float32Array((x.length / inner) * outer);
    for (let i = 0; i < out.length; i++) {
      const row = Math.floor(i / outer) * inner;
      const column = (i % outer) * inner;
      let sum = bias ? bias[i % outer] : 0;
      for (let j = 0; j < inner; j++) sum += x[row + j] * weight[column + j];
      out[i] = sum;
    }
    return out;
  }

  function layerNorm(x, width, weight, bias) {
    const out = new Float32Array(x.length);
    for (let row = 0; row < x.length; row += width) {
      const values = x.subarray(row, row + width);
      const mean = values.reduce((a, b) => a + b) / width;
      const scale = 1 / Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / width + 1e-5);
      for (let j = 0; j < width; j++) out[row + j] = (values[j] - mean) * scale * weight[j] + bias[j];
    }
    return out;
  }

  /** Equation (1): softmax over slots of logits (K, N), in place. */
  function compete(logits, slots) {
    const patches = logits.length / slots;
    for (let n = 0; n < patches; n++) {
      let top = -Infinity;
      let sum = 0;
      for (let i = n; i < logits.length; i += patches) top = Math.max(top, logits[i]);
      for (let i = n; i < logits.length; i += patches) sum += logits[i] = Math.exp(logits[i] - top);
      for (let i = n; i < logits.length; i += patches) logits[i] /= sum;
    }
    return logits;
  }

  /** Equation (4), first line: one step of torch's GRU cell. */
  function gru(update, state, width, model) {
    const a = linear(update, model['gru.weight_ih'], width, model['gru.bias_ih']);
    const b = linear(state, model['gru.weight_hh'], width, model['gru.bias_hh']);
    const sigmoid = (x) => 1 / (1 + Math.exp(-x));
    return state.map((old, i) => {
      const reset = Math.floor(i / width) * 3 * width + (i % width);
      const keep = sigmoid(a[reset + width] + b[reset + width]);
      const fresh = Math.tanh(a[reset + 2 * width] + sigmoid(a[reset] + b[reset]) * b[reset + 2 * width]);
      return (1 - keep) * fresh + keep * old;
    });
  }

  /** The scales of equations (9) and (10), with what the reader has set.
   *
   * setting.channel and setting.spatial are strengths: 0 makes a scale one, 1 leaves it, 2 doubles its distance from
   * one. setting.code is a code's number, or null for each slot's own. They hold for setting.slot, or for all slots.
   */
  function scalesOf(data, image, setting) {
    const { slots, width, model } = data;
    const patches = image.first.length / slots;
    const set = (k) => setting.all || k === setting.slot;
    const codes = new Float32Array(slots * width);
    for (let k = 0; k < slots; k++) {
      const code = set(k) && setting.code !== null ? setting.code : image.code[k];
      codes.set(model.codes.subarray(code * width, (code + 1) * width), k * width);
    }
    const turn = (value, k, strength) => (set(k) ? 1 + strength * (value - 1) : value);
    const channel = linear(codes, model['channel.weight'], width, model['channel.bias']) // (9)
      .map((value, i) => turn(value, Math.floor(i / width), setting.channel));
    const spatial = new Float32Array(slots * patches);
    for (let k = 0; k < slots; k++) {
      const map = image.first.subarray(k * patches, (k + 1) * patches);
      const mean = map.reduce((a, b) => a + b) / patches;
      for (let n = 0; n < patches; n++) spatial[k * patches + n] = turn(1 + map[n] - mean, k, setting.spatial); // (10)
    }
    return { channel, spatial };
  }

  /** One pass from the initial slots: the attention (K, N) of its last iteration. */
  function attend(data, image, scales) {
    const { slots, width, hidden, model } = data;
    const patches = image.keys.length / width;
    let state = image.start;
    let attention;
    for (let iteration = 0; iteration < data.iterations; iteration++) {
      const normed = layerNorm(state, width, model['norm_slots.weight'], model['norm_slots.bias']);
      const queries = linear(normed, model['project_q.weight'], width).map((q) => q / Math.sqrt(width));
      attention = compete(linear(queries, image.keys, width), slots); // (1)
      const update = new Float32Array(slots * width);
      for (let k = 0; k < slots; k++) {
        let total = 0;
        for (let n = 0; n < patches; n++) total += attention[k * patches + n] + EPS;
        for (let n = 0; n < patches; n++) {
          const weight = ((attention[k * patches + n] + EPS) / total) * scales.spatial[k * patches + n]; // (2), (12)
          for (let c = 0; c < width; c++) update[k * width + c] += weight * image.values[n * width + c]; // (3)
        }
        for (let c = 0; c < width; c++) update[k * width + c] *= scales.channel[k * width + c]; // (12)
      }
      state = gru(update, state, width, model);
      const inner = layerNorm(state, width, model['norm_mlp.weight'], model['norm_mlp.bias']);
      const units = linear(inner, model['mlp.0.weight'], width, model['mlp.0.bias']).map((h) => Math.max(h, 0));
      const more = linear(units, model['mlp.2.weight'], hidden, model['mlp.2.bias']);
      state = state.map((s, i) => s + more[i]); // (4), second line
    }
    return attention;
  }

  /** Maps (K, N) on the grid -> (K, side * side), bilinear, as the package's masks are made. */
  function enlarge(maps, [rows, columns], side) {
    const out = new Float32Array((maps.length / (rows * columns)) * side * side);
    const at = (i, count) => {
      const place = Math.max(0, ((i + 0.5) * count) / side - 0.5);
      const low = Math.floor(place);
      return [low, Math.min(low + 1, count - 1), place - low];
    };
    for (let i = 0; i < out.length; i++) {
      const first = Math.floor(i / (side * side)) * rows * columns;
      const [y0, y1, y] = at(Math.floor(i / side) % side, rows);
      const [x0, x1, x] = at(i % side, columns);
      const line = (row) => (1 - x) * maps[first + row * columns + x0] + x * maps[first + row * columns + x1];
      out[i] = (1 - y) * line(y0) + y * line(y1);
    }
    return out;
  }

  /** Maps (K, P) -> the slot of each of P pixels that has the most. */
  function winners(maps, slots) {
    const pixels = maps.length / slots;
    return Uint8Array.from({ length: pixels }, (_, p) => {
      let best = 0;
      for (let k = 1; k < slots; k++) if (maps[k * pixels + p] > maps[best * pixels + p]) best = k;
      return best;
    });
  }

  if (typeof module !== 'undefined') {
    module.exports = { unpackAll, scalesOf, attend, enlarge, winners };
    return;
  }

  // ------------------------------------------------------------------------------------------------ the page

  const NEUTRAL = { slot: 0, all: false, channel: 1, spatial: 1, code: null };
  const FIRST = { ...NEUTRAL, all: true, channel: 0, spatial: 0 }; // without scales the second pass is the first
  const PASSES = { first: 'first pass', trained: 'second pass, as trained', set: 'second pass, as set' };

  /** An element with properties and children. */
  function make(tag, properties, ...children) {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  function canvas(width, height, className) {
    const element = make('canvas', { width, height, className });
    element.setAttribute('role', 'img');
    return element;
  }

  /** Paint a canvas, colour(i) -> [red, green, blue] of its pixel i. */
  function paint(element, colour, label) {
    const picture = new ImageData(element.width, element.height);
    for (let i = 0; i < element.width * element.height; i++) picture.data.set([...colour(i), 255], 4 * i);
    element.getContext('2d').putImageData(picture, 0, 0);
    element.setAttribute('aria-label', label);
  }

  /** A scale's colour: white where it is one, blue below, red above, full one away. */
  function scaleColour(value) {
    const away = Math.max(-1, Math.min(1, value - 1));
    const end = away < 0 ? [33, 102, 172] : [178, 24, 43];
    return end.map((part) => 255 + Math.abs(away) * (part - 255));
  }

  async function pixelsOf(element) {
    await element.decode();
    const context = make('canvas', { width: element.naturalWidth, height: element.naturalHeight }).getContext('2d');
    context.drawImage(element, 0, 0);
    return context.getImageData(0, 0, element.naturalWidth, element.naturalHeight).data;
  }

  const percent = (share) => `${(100 * share).toFixed(0)}\u00a0%`;
  const share = (labels, test) => labels.reduce((count, label, i) => count + (test(label, i) ? 1 : 0), 0) / labels.length;

  async function start(place) {
    const data = unpackAll(globalThis.liveModulation);
    const { slots, side, colours, record } = data;
    const css = (slot) => `rgb(${colours[slot].join()})`;
    const choice = (name, value, ...shown) =>
      make('label', {}, make('input', { type: 'radio', name, value, checked: value === 0 }), ...shown);

    const pictures = data.images.map((image, i) =>
      make('img', { src: `data:image/png;base64,${image.png}`, alt: `image ${i + 1}`, width: side, height: side }));
    const chips = colours.map((_, k) => make('span', { textContent: k, style: `background: ${css(k)}` }));
    const all = make('input', { type: 'checkbox', name: 'live-all' });
    const slider = (name) => make('input', { type: 'range', name, min: 0, max: 2, step: 0.05, value: 1 });
    const [channel, spatial] = ['live-channel', 'live-spatial'].map(slider);
    const strengths = [channel, spatial].map(() => make('output', {}));
    const maps = [canvas(data.width, 1, 'live-channels'), canvas(data.grid[1], data.grid[0], 'live-patches')];
    const code = make('select', { name: 'live-code' });
    const reset = make('button', { type: 'button', textContent: 'Reset', className: 'live-reset' });
    const shown = Object.keys(PASSES).map((pass) => ({
      pass, mask: canvas(side, side, 'live-mask'), attention: canvas(side, side, 'live-attention'),
    }));
    const text = make('p', { className: 'live-text' });
    text.setAttribute('aria-live', 'polite');

    const row = (title, control, ...more) => make('div', { className: 'live-row' },
      make('label', {}, make('span', { textContent: title }), control), ...more);
    const group = (title, className, ...children) =>
      make('fieldset', { className }, make('legend', { textContent: title }), ...children);
    const figure = make('div', { className: 'live-figure' },
      make('div', { className: 'live-choose' },
        group('Image', 'live-images', ...pictures.map((picture, i) => choice('live-image', i, picture))),
        group('Slot', 'live-slots', ...chips.map((chip, k) => choice('live-slot', k, chip)))),
      make('div', { className: 'live-panels' }, ...shown.map(({ pass, mask, attention }) =>
        make('div', {}, make('div', { className: 'live-title', textContent: PASSES[pass] }), mask, attention))),
      text,
      row('What: channel scale', channel, strengths[0], maps[0]),
      row('Where: spatial scale', spatial, strengths[1], maps[1]),
      row('Code', code, make('div', { className: 'live-last' },
        make('label', { className: 'live-all' }, all, 'all slots'), reset)),
      make('p', { className: 'live-record', textContent:
        'Strength 0: the scale is one everywhere. 1: as trained. 2: twice as far from one. White is one, blue is less, ' +
        `red is more. Computed in this page with the weights of run ${record.config}, seed ${record.seed}, of preset ` +
        `${record.preset} (commit ${record.commit}).` }));

    const pixels = await Promise.all(pictures.map(pixelsOf));
    const chosen = (name) => Number(figure.querySelector(`input[name=${name}]:checked`).value);
    const compute = (image, setting) => {
      const large = enlarge(attend(data, image, scalesOf(data, image, setting)), data.grid, side);
      return { large, labels: winners(large, slots) };
    };
    let before = -1;
    let passes;

    function listCodes(own) {
      const holders = (e) => own.flatMap((other, k) => (other === e ? [k] : []));
      const name = (e) => (holders(e).length ? `${e} (of slot ${holders(e).join(', ')})` : `${e}`);
      const options = Array.from({ length: data.codes }, (_, e) => make('option', { value: e, textContent: name(e) }));
      const kept = code.value;
      code.replaceChildren(make('option', { value: '', textContent: 'its own' }), ...options);
      code.value = kept;
    }

    function update() {
      const number = chosen('live-image');
      const image = data.images[number];
      const setting = {
        slot: chosen('live-slot'), all: all.checked, channel: channel.valueAsNumber, spatial: spatial.valueAsNumber,
        code: code.value ? Number(code.value) : null,
      };
      const { slot } = setting;
      if (number !== before) {
        passes = { first: compute(image, FIRST), trained: compute(image, NEUTRAL) };
        listCodes(image.code);
        before = number;
      }
      passes.set = compute(image, setting);
      const area = (pass) => percent(share(passes[pass].labels, (label) => label === slot));
      for (const { pass, mask, attention } of shown) {
        const { large, labels } = passes[pass];
        const at = (i, part) => pixels[number][4 * i + part];
        const edge = (i) => (i % side && labels[i] !== labels[i - 1]) || (i >= side && labels[i] !== labels[i - side]);
        paint(mask, (i) => (edge(i) ? [255, 255, 255] : colours[labels[i]].map((c, part) => 0.4 * at(i, part) + 0.6 * c)),
          `Masks of the ${PASSES[pass]}`);
        paint(attention, (i) => {
          const a = large[slot * side * side + i];
          return colours[slot].map((c, part) => (1 - a) * 0.45 * at(i, part) + a * (0.25 * at(i, part) + 0.75 * c));
        }, `Attention of slot ${slot}, ${PASSES[pass]}: ${area(pass)} of the image`);
      }
      const scales = scalesOf(data, image, setting);
      [scales.channel, scales.spatial].forEach((values, which) => {
        const own = values.subarray((slot * values.length) / slots, ((slot + 1) * values.length) / slots);
        const [low, high] = [Math.min(...own), Math.max(...own)].map((value) => value.toFixed(2));
        paint(maps[which], (i) => scaleColour(own[i]), `Scale of slot ${slot}, from ${low} to ${high}`);
        strengths[which].textContent = setting[which ? 'spatial' : 'channel'].toFixed(2);
      });
      const differ = (pass) => share(passes.set.labels, (label, i) => label !== passes[pass].labels[i]);
      const again = setting.all && !setting.channel && !setting.spatial;
      text.textContent = `${percent(differ('trained'))} of the pixels are another slot's than in the second pass as ` +
        `trained${again ? `, and ${percent(differ('first'))} than in the first` : ''}. Slot ${slot} has ${area('set')} of ` +
        `the image; as trained ${area('trained')}, in the first pass ${area('first')}.`;
    }

    figure.addEventListener('input', update);
    reset.addEventListener('click', () => {
      [channel.value, spatial.value, code.value, all.checked] = [1, 1, '', false];
      update();
    });
    update();
    place.replaceChildren(figure); // only now: whatever fails leaves the static image
  }

  const place = document.getElementById('live-modulation');
  if (place && globalThis.liveModulation) start(place);
})();
