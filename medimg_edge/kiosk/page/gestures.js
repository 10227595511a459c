// Fingers, mouse and keys on the picture, as three things that can happen to it.

const STEP = 40;
const KEYS = {
  ArrowLeft: (on) => on.move(STEP, 0),
  ArrowRight: (on) => on.move(-STEP, 0),
  ArrowUp: (on) => on.move(0, STEP),
  ArrowDown: (on) => on.move(0, -STEP),
  "+": (on) => on.zoom(1.25),
  "=": (on) => on.zoom(1.25),
  "-": (on) => on.zoom(0.8),
  0: (on) => on.reset(),
};

/**
 * Calls on.move(dx, dy), on.zoom(factor, x, y), on.light(dx, dy) and on.reset(), in CSS pixels.
 *
 * One finger or the left button drags, by on.mode() the place or the light; the right button always
 * the light. Two fingers pinch, the wheel zooms, a double tap zooms in.
 */
export function listen(stage, on) {
  const fingers = new Map();

  stage.addEventListener("pointerdown", (event) => {
    stage.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, place(stage, event));
  });
  stage.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = place(stage, event);
    if (fingers.size === 2) pinch(on, fingers, event.pointerId, now);
    else drag(on, event, before, now);
    fingers.set(event.pointerId, now);
  });
  for (const ended of ["pointerup", "pointercancel", "lostpointercapture"]) {
    stage.addEventListener(ended, (event) => fingers.delete(event.pointerId));
  }
  stage.addEventListener("contextmenu", (event) => event.preventDefault());
  stage.addEventListener("dblclick", (event) => {
    const { x, y } = place(stage, event);
    on.zoom(2, x, y);
  });
  stage.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const { x, y } = place(stage, event);
      on.zoom(2 ** (-event.deltaY / 400), x, y);
    },
    { passive: false },
  );
  stage.addEventListener("keydown", (event) => {
    const act = KEYS[event.key];
    if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act(on);
  });
}

function drag(on, event, before, now) {
  const [dx, dy] = [now.x - before.x, now.y - before.y];
  if (event.buttons & 2 || on.mode() === "light") on.light(dx, dy);
  else on.move(dx, dy);
}

function pinch(on, fingers, moved, now) {
  const [still] = [...fingers].filter(([id]) => id !== moved).map(([, at]) => at);
  const before = fingers.get(moved);
  const middle = { x: (still.x + now.x) / 2, y: (still.y + now.y) / 2 };
  on.move((now.x - before.x) / 2, (now.y - before.y) / 2);
  on.zoom(apart(still, now) / apart(still, before), middle.x, middle.y);
}

function apart(a, b) {
  return Math.max(1, Math.hypot(a.x - b.x, a.y - b.y));
}

function place(stage, event) {
  const box = stage.getBoundingClientRect();
  return { x: event.clientX - box.left, y: event.clientY - box.top };
}
