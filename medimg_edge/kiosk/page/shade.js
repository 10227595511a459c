// From an image's values to grey levels: window and level as PS3.3 C.11.2 has them, on a line.

const STEPS_PER_HALF = 33;

/**
 * What is black and what is white of a picture, in its samples.
 *
 * brightness and contrast are those of two sliders, from -100 to 100; at 0 the picture is as it
 * came. Brighter moves the level, more contrast makes the width smaller.
 */
export function windowOf(picture, brightness, contrast) {
  const width = Math.max(
    (picture.high - picture.low) * 2 ** (-contrast / STEPS_PER_HALF),
    Number.EPSILON,
  );
  const shift = (brightness / 100) * Math.max(picture.high - picture.low, picture.spread) * 0.5;
  const level = (picture.low + picture.high) / 2 + (picture.inverted ? shift : -shift);
  return { low: level - width / 2, high: level + width / 2 };
}

/** The same in the picture's own unit, such as Hounsfield units. */
export function inUnits(picture, { low, high }) {
  return {
    level: ((low + high) / 2) * picture.slope + picture.intercept,
    width: (high - low) * picture.slope,
  };
}

/** From the smallest sample to the largest. */
export function spreadOf(values) {
  let least = Infinity;
  let most = -Infinity;
  for (const each of values) {
    if (each < least) least = each;
    if (each > most) most = each;
  }
  return most - least;
}

/** Draws the samples into pixels, an ImageData of the picture's size. */
export function shade(picture, { low, high }, pixels) {
  const grey = levels(picture, low, high);
  const { values, channels } = picture;
  const { data } = pixels;
  const [red, green, blue] = channels === 3 ? [0, 1, 2] : [0, 0, 0];
  for (let at = 0, to = 0; to < data.length; at += channels, to += 4) {
    data[to] = grey[values[at + red]];
    data[to + 1] = grey[values[at + green]];
    data[to + 2] = grey[values[at + blue]];
    data[to + 3] = 255;
  }
}

/** The grey of every sample that there can be. */
function levels(picture, low, high) {
  const table = new Uint8ClampedArray(2 ** picture.bits);
  for (let value = 0; value < table.length; value += 1) {
    const grey = Math.min(1, Math.max(0, (value - low) / (high - low))) * 255;
    table[value] = picture.inverted ? 255 - grey : grey;
  }
  return table;
}
