//! Pictures of what happened, one for each plant that has a name for it: the limit, the load and
//! the capacity over time, and below the latency, ours beside others. Pixels and letters are
//! those of `embedded-graphics`, so that no font is needed.

use std::convert::Infallible;
use std::io::BufWriter;

use embedded_graphics::mono_font::ascii::{FONT_7X13, FONT_7X13_BOLD};
use embedded_graphics::mono_font::{MonoFont, MonoTextStyle};
use embedded_graphics::pixelcolor::Rgb888;
use embedded_graphics::prelude::*;
use embedded_graphics::primitives::{Line, PrimitiveStyle, Rectangle};
use embedded_graphics::text::{Alignment, Text};

use crate::policy::Who;
use crate::rivals::Kind;
use crate::scenario::Scenario;
use crate::world::Second;
use crate::{Runs, outcomes};

/// Beside each other.
const SHOWN: [Who; 4] = [
    Who::Ours,
    Who::Rival(Kind::Aimd),
    Who::Rival(Kind::Vegas),
    Who::Rival(Kind::Gradient2),
];

const SIZE: Size = Size::new(1180, 470);
const LEFT: i32 = 62;
const COLUMN: i32 = 266;
const GAP: i32 = 14;
/// Top and height of the upper diagrams and of the lower ones.
const UPPER: (i32, i32) = (64, 200);
const LOWER: (i32, i32) = (296, 120);
/// A pixel of a curve is the mean of this many seconds.
const STEP_S: usize = 4;
/// The upper scale ends at so many times the greatest capacity; what is above runs along the edge.
const HIGHEST: f64 = 2.0;

const WHITE: Rgb888 = Rgb888::WHITE;
const BLACK: Rgb888 = Rgb888::new(40, 40, 40);
const GRID: Rgb888 = Rgb888::new(225, 225, 225);
const CAPACITY: Rgb888 = Rgb888::new(205, 222, 205);
const LIMIT: Rgb888 = Rgb888::new(220, 110, 20);
const LOAD: Rgb888 = Rgb888::new(120, 165, 235);
const LATENCY: Rgb888 = Rgb888::new(150, 30, 110);

/// Draws the plants that have a picture into a folder.
pub fn draw(folder: &str, scenarios: &[Scenario], runs: &[Runs]) {
    std::fs::create_dir_all(folder).unwrap();
    for (index, scenario) in scenarios.iter().enumerate() {
        if let Some(picture) = scenario.picture {
            let traces = SHOWN.map(|who| &outcomes(runs, index, who)[0].trace[0]);
            let canvas = picture_of(scenario, traces);
            canvas.save(&format!("{folder}/gate-{picture}.png"));
        }
    }
}

fn picture_of(scenario: &Scenario, traces: [&Vec<Second>; 4]) -> Canvas {
    let mut canvas = Canvas::new();
    canvas.text(
        &scenario.name,
        LEFT,
        16,
        BLACK,
        &FONT_7X13_BOLD,
        Alignment::Left,
    );
    canvas.legend();
    let greatest = traces[0].iter().map(|at| at.capacity).fold(1.0, f64::max);
    let jobs = Scale::even(greatest * HIGHEST);
    let latencies = traces.iter().flat_map(|trace| trace.iter());
    let ms = Scale::decades(latencies.filter_map(|at| at.latency).map(|s| s * 1e3));
    canvas.text(
        "jobs",
        LEFT - 8,
        UPPER.0 - 6,
        BLACK,
        &FONT_7X13,
        Alignment::Right,
    );
    canvas.text(
        "ms",
        LEFT - 8,
        LOWER.0 - 14,
        BLACK,
        &FONT_7X13,
        Alignment::Right,
    );
    for (column, (who, trace)) in SHOWN.into_iter().zip(traces).enumerate() {
        let left = LEFT + column as i32 * (COLUMN + GAP);
        let panel = |(top, height): (i32, i32)| Panel {
            left,
            top,
            height,
            seconds: scenario.seconds,
        };
        let (upper, lower) = (panel(UPPER), panel(LOWER));
        canvas.text(
            who.name(),
            left,
            UPPER.0 - 6,
            BLACK,
            &FONT_7X13_BOLD,
            Alignment::Left,
        );
        canvas.capacity(&upper, &jobs, trace);
        canvas.frame(&upper, &jobs, column == 0);
        canvas.frame(&lower, &ms, column == 0);
        canvas.curve(&upper, &jobs, &means(trace, |at| Some(at.load)), LOAD, 3);
        canvas.curve(&upper, &jobs, &means(trace, |at| Some(at.limit)), LIMIT, 1);
        canvas.curve(
            &lower,
            &ms,
            &means(trace, |at| at.latency.map(|s| s * 1e3)),
            LATENCY,
            1,
        );
        canvas.minutes(&lower);
    }
    canvas
}

/// One mean for each pixel; none where nothing was.
fn means(trace: &[Second], value: impl Fn(&Second) -> Option<f64>) -> Vec<Option<f64>> {
    let mean = |part: &[Second]| {
        let values: Vec<f64> = part.iter().filter_map(&value).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    trace.chunks(STEP_S).map(mean).collect()
}

/// From values to heights, with the marks at its side.
struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
    marks: Vec<f64>,
}

impl Scale {
    fn even(high: f64) -> Self {
        let step = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0]
            .into_iter()
            .find(|step| high / step <= 5.5)
            .unwrap_or(100.0);
        let marks = (0..).map(|i| f64::from(i) * step);
        Self {
            low: 0.0,
            high,
            logarithmic: false,
            marks: marks.take_while(|mark| *mark <= high).collect(),
        }
    }

    /// Whole powers of ten around all values.
    fn decades(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), x| {
            (low.min(x), high.max(x))
        });
        let (from, to) = (
            low.max(1e-3).log10().floor() as i32,
            high.max(1e-2).log10().ceil() as i32,
        );
        Self {
            low: 10f64.powi(from),
            high: 10f64.powi(to),
            logarithmic: true,
            marks: (from..=to).map(|power| 10f64.powi(power)).collect(),
        }
    }

    /// 0 at the bottom, 1 at the top; what is beyond is cut off.
    fn share(&self, value: f64) -> f64 {
        let share = match self.logarithmic {
            true => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        share.clamp(0.0, 1.0)
    }
}

/// Where a diagram stands.
struct Panel {
    left: i32,
    top: i32,
    height: i32,
    seconds: f64,
}

impl Panel {
    fn x(&self, seconds: f64) -> i32 {
        self.left + (seconds / self.seconds * f64::from(COLUMN)).round() as i32
    }

    fn y(&self, share: f64) -> i32 {
        self.top + self.height - (share * f64::from(self.height)).round() as i32
    }
}

/// The pixels, row by row.
struct Canvas(Vec<Rgb888>);

impl OriginDimensions for Canvas {
    fn size(&self) -> Size {
        SIZE
    }
}

impl DrawTarget for Canvas {
    type Color = Rgb888;
    type Error = Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Infallible>
    where
        I: IntoIterator<Item = Pixel<Rgb888>>,
    {
        for Pixel(point, colour) in pixels {
            if Rectangle::new(Point::zero(), SIZE).contains(point) {
                self.0[point.y as usize * SIZE.width as usize + point.x as usize] = colour;
            }
        }
        Ok(())
    }
}

impl Canvas {
    fn new() -> Self {
        Self(vec![WHITE; (SIZE.width * SIZE.height) as usize])
    }

    fn text(
        &mut self,
        text: &str,
        x: i32,
        y: i32,
        colour: Rgb888,
        font: &MonoFont,
        alignment: Alignment,
    ) {
        let style = MonoTextStyle::new(font, colour);
        Text::with_alignment(text, Point::new(x, y), style, alignment)
            .draw(self)
            .unwrap();
    }

    fn line(&mut self, from: (i32, i32), to: (i32, i32), colour: Rgb888, width: u32) {
        let line = Line::new(from.into(), to.into());
        line.into_styled(PrimitiveStyle::with_stroke(colour, width))
            .draw(self)
            .unwrap();
    }

    fn legend(&mut self) {
        let entries = [
            ("capacity", CAPACITY, 8),
            ("limit", LIMIT, 2),
            ("load", LOAD, 3),
            ("latency (mean of what ended)", LATENCY, 2),
        ];
        let mut x = 470;
        for (name, colour, width) in entries {
            self.line((x, 12), (x + 22, 12), colour, width);
            self.text(name, x + 28, 16, BLACK, &FONT_7X13, Alignment::Left);
            x += 28 + 7 * name.len() as i32 + 24;
        }
    }

    /// Marks and the border; the numbers only at the first of a row.
    fn frame(&mut self, panel: &Panel, scale: &Scale, numbers: bool) {
        let right = panel.left + COLUMN;
        for mark in &scale.marks {
            let y = panel.y(scale.share(*mark));
            self.line((panel.left, y), (right, y), GRID, 1);
            if numbers {
                self.text(
                    &format!("{mark}"),
                    panel.left - 8,
                    y + 4,
                    BLACK,
                    &FONT_7X13,
                    Alignment::Right,
                );
            }
        }
        let corner = Point::new(panel.left, panel.top);
        Rectangle::new(
            corner,
            Size::new(COLUMN as u32 + 1, panel.height as u32 + 1),
        )
        .into_styled(PrimitiveStyle::with_stroke(BLACK, 1))
        .draw(self)
        .unwrap();
    }

    fn minutes(&mut self, panel: &Panel) {
        let bottom = panel.top + panel.height;
        for minute in (0..=(panel.seconds / 60.0) as i32).step_by(5) {
            let x = panel.x(f64::from(minute) * 60.0);
            self.line((x, bottom), (x, bottom + 4), BLACK, 1);
            let unit = if minute == 0 {
                "0 min".to_owned()
            } else {
                minute.to_string()
            };
            let alignment = if minute == 0 {
                Alignment::Left
            } else {
                Alignment::Center
            };
            self.text(&unit, x, bottom + 17, BLACK, &FONT_7X13, alignment);
        }
    }

    fn capacity(&mut self, panel: &Panel, scale: &Scale, trace: &[Second]) {
        let bottom = panel.top + panel.height;
        for x in 1..COLUMN {
            let at = f64::from(x) / f64::from(COLUMN) * trace.len() as f64;
            let y = panel.y(scale.share(trace[at as usize].capacity));
            self.line((panel.left + x, y), (panel.left + x, bottom), CAPACITY, 1);
        }
    }

    fn curve(
        &mut self,
        panel: &Panel,
        scale: &Scale,
        values: &[Option<f64>],
        colour: Rgb888,
        width: u32,
    ) {
        let point = |(index, value): (usize, &Option<f64>)| {
            let seconds = (index as f64 + 0.5) * STEP_S as f64;
            value.map(|value| (panel.x(seconds), panel.y(scale.share(value))))
        };
        let points: Vec<_> = values.iter().enumerate().map(point).collect();
        for pair in points.windows(2) {
            if let [Some(from), Some(to)] = pair {
                self.line(*from, *to, colour, width);
            }
        }
    }

    /// As PNG of few colours.
    fn save(&self, path: &str) {
        let mut palette: Vec<Rgb888> = Vec::new();
        let mut index_of = |colour: &Rgb888| {
            let known = palette.iter().position(|known| known == colour);
            known.unwrap_or_else(|| {
                palette.push(*colour);
                palette.len() - 1
            }) as u8
        };
        let pixels: Vec<u8> = self.0.iter().map(&mut index_of).collect();
        let file = BufWriter::new(std::fs::File::create(path).unwrap());
        let mut encoder = png::Encoder::new(file, SIZE.width, SIZE.height);
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_palette(
            palette
                .iter()
                .flat_map(|c| [c.r(), c.g(), c.b()])
                .collect::<Vec<u8>>(),
        );
        encoder.set_compression(png::Compression::High);
        encoder
            .write_header()
            .unwrap()
            .write_image_data(&pixels)
            .unwrap();
    }
}
