//! Line charts as SVG.
//!
//! *Place*: under `page`. *Owner*: none. *Invariants*: text and lines take their colours from the
//! page's classes, so that a chart follows its theme; every point lies within the frame.
//! *On failure*: a line without points is left out.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 44.0;
/// Lines of a linear axis, at most.
const TICKS_MAX: f64 = 6.0;
/// Below it shares are not told apart.
const NINES_MIN: f64 = 0.01;

/// How values become places along an axis.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Scale {
    /// From zero to a round number.
    Linear,
    /// From zero to the largest.
    Time,
    /// Decades.
    Log,
    /// Shares from 1 % on, by their odds: each further nine takes as much room as the one before.
    Nines,
}

/// One direction of a chart.
pub(crate) struct Axis<'a> {
    /// What it counts.
    pub(crate) label: &'a str,
    /// How.
    pub(crate) scale: Scale,
    /// A value in words.
    pub(crate) text: fn(f64) -> String,
}

/// Points to be joined. What is not a number leaves a gap.
pub(crate) struct Line<'a> {
    /// Stands in the legend.
    pub(crate) name: String,
    /// Class of its colour and stroke.
    pub(crate) class: &'a str,
    /// Ascending.
    pub(crate) points: Vec<(f64, f64)>,
}

/// An axis with its ends: in scaled values.
struct Span<'a> {
    axis: &'a Axis<'a>,
    low: f64,
    high: f64,
}

/// The chart of `lines`, or nothing if there is nothing to draw.
pub(crate) fn chart(title: &str, x: &Axis<'_>, y: &Axis<'_>, lines: &[Line<'_>]) -> String {
    let all = || lines.iter().flat_map(|line| line.points.iter());
    let spans = (
        Span::new(x, all().map(|(x, _)| *x)),
        Span::new(y, all().map(|(_, y)| *y)),
    );
    let (Some(x), Some(y)) = spans else {
        return String::new();
    };
    let mut svg = format!(
        "<figure><figcaption>{title}{}</figcaption>\n\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">\n",
        legend(lines)
    );
    grid(&mut svg, &x, &y);
    for line in lines {
        draw(&mut svg, line, &x, &y);
    }
    svg.push_str("</svg></figure>\n");
    svg
}

fn legend(lines: &[Line<'_>]) -> String {
    let items = lines.iter().map(|line| {
        let Line { name, class, .. } = line;
        format!(
            "<span class=\"key\"><svg viewBox=\"0 0 22 8\" width=\"22\" height=\"8\" aria-hidden=\"true\">\
             <path class=\"line {class}\" d=\"M0 4H22\"/></svg>{name}</span>"
        )
    });
    format!(
        "<span class=\"legend\">{}</span>",
        items.collect::<String>()
    )
}

fn grid(svg: &mut String, x: &Span<'_>, y: &Span<'_>) {
    let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for value in y.ticks() {
        let at = y.vertical(value);
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>\
             <text class=\"tick\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 8.0,
            at + 4.0,
            (y.axis.text)(value)
        );
    }
    for value in x.ticks() {
        let at = x.horizontal(value);
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/>\
             <text class=\"tick\" x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 16.0,
            (x.axis.text)(value)
        );
    }
    let _ = writeln!(
        svg,
        "<path class=\"axis\" d=\"M{LEFT} {bottom}H{right}\"/>\
         <text class=\"label\" x=\"{right}\" y=\"{}\" text-anchor=\"end\">{}</text>\
         <text class=\"label\" x=\"{LEFT}\" y=\"{}\">{}</text>",
        HEIGHT - 8.0,
        x.axis.label,
        HEIGHT - 8.0,
        y.axis.label
    );
}

fn draw(svg: &mut String, line: &Line<'_>, x: &Span<'_>, y: &Span<'_>) {
    let mut path = String::new();
    let mut marks = String::new();
    let mut joins = false;
    for (at, value) in &line.points {
        if !is_drawn(x.axis.scale, *at) || !is_drawn(y.axis.scale, *value) {
            joins = false;
            continue;
        }
        let (left, top) = (x.horizontal(*at), y.vertical(*value));
        let _ = write!(path, "{}{left:.1} {top:.1}", if joins { 'L' } else { 'M' });
        joins = true;
        let _ = write!(
            marks,
            "<circle cx=\"{left:.1}\" cy=\"{top:.1}\" r=\"5\"><title>{}: {} at {}</title></circle>",
            line.name,
            (y.axis.text)(*value),
            (x.axis.text)(*at)
        );
    }
    let class = line.class;
    let _ = writeln!(
        svg,
        "<path class=\"line {class}\" d=\"{path}\"/><g class=\"marks {class}\">{marks}</g>"
    );
}

fn is_drawn(scale: Scale, value: f64) -> bool {
    value.is_finite() && (scale != Scale::Log || value > 0.0)
}

impl Scale {
    fn apply(self, value: f64) -> f64 {
        match self {
            Self::Linear | Self::Time => value,
            Self::Log => value.max(f64::MIN_POSITIVE).log10(),
            Self::Nines => {
                let share = value.clamp(NINES_MIN, 1.0 - 1e-9);
                (share / (1.0 - share)).log10()
            }
        }
    }
}

impl<'a> Span<'a> {
    fn new(axis: &'a Axis<'a>, values: impl Iterator<Item = f64>) -> Option<Self> {
        let scale = axis.scale;
        let scaled: Vec<f64> = values
            .filter(|value| is_drawn(scale, *value))
            .map(|value| scale.apply(value))
            .collect();
        let largest = scaled.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let least = scaled.iter().copied().fold(f64::INFINITY, f64::min);
        if scaled.is_empty() {
            return None;
        }
        let (low, high) = match scale {
            Scale::Linear => {
                let step = nice_step(largest);
                (0.0, (largest / step).ceil().max(1.0) * step)
            }
            // Whole halves of a decade, and at least one.
            Scale::Log => {
                let low = (least * 2.0).floor() / 2.0;
                (low, ((largest * 2.0).ceil() / 2.0).max(low + 1.0))
            }
            Scale::Time => (0.0, largest.max(1e-3)),
            Scale::Nines => {
                let low = scale.apply(NINES_MIN);
                (low, largest.max(low + 1.0))
            }
        };
        Some(Self { axis, low, high })
    }

    fn ticks(&self) -> Vec<f64> {
        let all: Vec<f64> = match self.axis.scale {
            Scale::Linear | Scale::Time => {
                let step = nice_step(self.high);
                let count = (self.high / step + 1e-9).floor();
                (0_u32..=20)
                    .map(f64::from)
                    .take_while(|index| *index <= count)
                    .map(|index| index * step)
                    .collect()
            }
            Scale::Log => {
                let parts: &[f64] = if self.high - self.low > 3.0 {
                    &[1.0]
                } else {
                    &[1.0, 2.0, 5.0]
                };
                let decades = (0_i32..=12).map(|decade| 10_f64.powi(decade));
                decades
                    .flat_map(|decade| parts.iter().map(move |part| part * decade))
                    .collect()
            }
            Scale::Nines => vec![NINES_MIN, 0.1, 0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999],
        };
        let within = |value: &f64| {
            let at = self.axis.scale.apply(*value);
            at >= self.low - 1e-9 && at <= self.high + 1e-9
        };
        all.into_iter().filter(within).collect()
    }

    fn share(&self, value: f64) -> f64 {
        let share = (self.axis.scale.apply(value) - self.low) / (self.high - self.low);
        share.clamp(0.0, 1.0)
    }

    fn horizontal(&self, value: f64) -> f64 {
        LEFT + self.share(value) * (WIDTH - LEFT - RIGHT)
    }

    fn vertical(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.share(value) * (HEIGHT - TOP - BOTTOM)
    }
}

/// 1, 2 or 5 times a power of ten, so that a few steps reach `largest`.
fn nice_step(largest: f64) -> f64 {
    let rough = largest.max(1e-3) / TICKS_MAX;
    let decade = 10_f64.powf(rough.log10().floor());
    let part = [1.0, 2.0, 5.0, 10.0];
    let part = part.into_iter().find(|part| part * decade >= rough);
    part.unwrap_or(10.0) * decade
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(scale: Scale) -> Axis<'static> {
        Axis {
            label: "label",
            scale,
            text: |value| format!("{value}"),
        }
    }

    fn ticks(scale: Scale, values: &[f64]) -> Vec<f64> {
        let axis = axis(scale);
        let span = Span::new(&axis, values.iter().copied()).unwrap();
        span.ticks()
    }

    #[test]
    fn ticks_are_round_and_enclose_the_values() {
        assert_eq!(
            ticks(Scale::Linear, &[0.0, 47.0]),
            [0.0, 10.0, 20.0, 30.0, 40.0, 50.0]
        );
        assert_eq!(
            ticks(Scale::Log, &[130.0, 4000.0]),
            [100.0, 200.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0]
        );
        assert_eq!(
            ticks(Scale::Log, &[1.0, 1e5]),
            [1.0, 10.0, 100.0, 1000.0, 10_000.0, 100_000.0]
        );
        assert_eq!(
            ticks(Scale::Nines, &[0.5, 0.999]),
            [0.01, 0.1, 0.5, 0.9, 0.99, 0.999]
        );
        assert_eq!(ticks(Scale::Time, &[32.7]), [0.0, 10.0, 20.0, 30.0]);
        assert_eq!(ticks(Scale::Linear, &[0.0]).first(), Some(&0.0));
    }

    #[test]
    fn lines_stay_in_the_frame_and_break_at_gaps() {
        let line = Line {
            name: "n".into(),
            class: "c",
            points: vec![(0.0, 5.0), (1.0, f64::NAN), (2.0, 9.0), (3.0, 1.0)],
        };
        let (x, y) = (axis(Scale::Linear), axis(Scale::Linear));
        let svg = chart("t", &x, &y, &[line]);
        let path = svg
            .lines()
            .find(|line| line.contains("class=\"line c\" d=\"M64"))
            .unwrap();
        assert_eq!(path.matches('M').count(), 2, "{path}");
        assert_eq!(svg.matches("<circle").count(), 3);
        assert!(!svg.contains("NaN"), "{svg}");
        let higher = |value| {
            Span::new(&y, [0.0, 10.0].into_iter())
                .unwrap()
                .vertical(value)
        };
        assert!(higher(9.0) < higher(1.0) && higher(10.0) >= TOP);
        assert_eq!(chart("t", &x, &y, &[]), "");
    }
}
