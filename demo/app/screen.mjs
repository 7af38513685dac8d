// What the demo shows: scenes, a live line while something goes on, events of the daemon, a table at the end.

const COLOURS = { dim: 2, red: 31, green: 32, yellow: 33, cyan: 36 };
/** Without a terminal to redraw, a line is printed this often. */
const PLAIN_EVERY_MS = 2000;
const SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏";

export class Screen {
  #tty = Boolean(process.stdout.isTTY);
  #colours = this.#tty && !process.env.NO_COLOR;
  #started = Date.now();
  #ticks = 0;
  #lastPlain = { at: 0, text: "" };
  #hasLive = false;

  paint(colour, text) {
    return this.#colours ? `\x1b[${COLOURS[colour]}m${text}\x1b[0m` : text;
  }

  /** Seconds since the start. */
  seconds(at = Date.now()) {
    return (at - this.#started) / 1000;
  }

  print(text = "") {
    if (this.#hasLive) process.stdout.write("\r\x1b[2K");
    this.#hasLive = false;
    process.stdout.write(`${text}\n`);
  }

  scene(number, title, look) {
    this.print();
    this.print(this.paint("cyan", `${number}. ${title}`));
    this.print(this.paint("dim", `   Look at: ${look}`));
  }

  /** What goes on at this moment. Call it a few times a second. */
  live(text) {
    if (this.#tty) {
      const room = (process.stdout.columns || 80) - 6;
      const shown = text.length > room ? `${text.slice(0, room - 1)}…` : text;
      const spinner = SPINNER[this.#ticks++ % SPINNER.length];
      process.stdout.write(`\r\x1b[2K   ${this.paint("yellow", spinner)} ${shown}`);
      this.#hasLive = true;
      return;
    }
    const now = Date.now();
    if (text === this.#lastPlain.text || now - this.#lastPlain.at < PLAIN_EVERY_MS) return;
    this.#lastPlain = { at: now, text };
    this.print(`   … ${text}`);
  }

  /** Something the daemon logged. */
  event(event) {
    const when = `${this.seconds(event.at).toFixed(1).padStart(5)} s`;
    this.print(`   ${this.paint("yellow", "»")} ${when}  ${told(event)}`);
  }

  note(text) {
    this.print(`   ${text}`);
  }

  result(isMet, text) {
    this.print(`   ${isMet ? this.paint("green", "✓") : this.paint("red", "✗")} ${text}`);
  }

  /** Rows under headings; numbers to the right. */
  table(headings, rows) {
    const lines = [headings, ...rows.map((row) => row.map(String))];
    const widths = headings.map((_, column) => Math.max(...lines.map((line) => line[column].length)));
    const isNumeric = headings.map((_, column) => rows.every((row) => typeof row[column] === "number"));
    lines.forEach((line, index) => {
      const cells = line.map((cell, column) =>
        isNumeric[column] ? cell.padStart(widths[column]) : cell.padEnd(widths[column]),
      );
      this.print(index === 0 ? this.paint("dim", `   ${cells.join("  ")}`) : `   ${cells.join("  ")}`);
    });
  }
}

/** One event of the log in one line. */
function told({ event, resource, from, to, signal, value, reason, kind, error, handler }) {
  switch (event) {
    case "gate":
      return `gate of ${resource}: ${from} → ${to}  (${signal} ${value == null ? "missing" : Math.round(value)})`;
    case "breaker":
      return `breaker of ${handler} × ${resource}: ${from} → ${to}  (${reason})`;
    case "job_dead":
      return `dead: ${kind}: ${error ?? reason}`;
    default:
      return `${event}: ${error ?? reason ?? resource ?? ""}`;
  }
}
