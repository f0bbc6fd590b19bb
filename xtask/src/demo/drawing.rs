//! The demo's result as people see it: a table and a strip of time in text, and the same as a drawing in SVG.

use std::time::Duration;

use super::judge::Verdict;

/// Where the run stood at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sample {
    pub(crate) at: Duration,
    pub(crate) acknowledged: u64,
    /// Every sight counts, redelivered ones too.
    pub(crate) seen: u64,
}

/// One SIGKILL and the start after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kill {
    pub(crate) at: Duration,
    pub(crate) ready_after: Duration,
}

/// The course of one run.
#[derive(Debug)]
pub(crate) struct Drawing {
    pub(crate) records: u64,
    pub(crate) samples: Vec<Sample>,
    pub(crate) kills: Vec<Kill>,
    pub(crate) redelivered_at: Vec<Duration>,
    pub(crate) first_start: Duration,
}

/// Columns of the strips of time.
const STRIP_COLUMNS: usize = 64;
const BLOCKS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// One line for a terminal while the run goes on.
pub(crate) fn progress_bar(sample: &Sample, records: u64) -> String {
    let columns = 40;
    let filled = |count: u64| (count.min(records) as usize * columns) / records.max(1) as usize;
    let (acknowledged, seen) = (filled(sample.acknowledged), filled(sample.seen));
    let bar: String = (0..columns)
        .map(|column| match (column < seen, column < acknowledged) {
            (true, _) => '█',
            (false, true) => '▒',
            (false, false) => '·',
        })
        .collect();
    format!(
        "[{bar}] {:>9} acknowledged {:>9} seen {:>6.1} s",
        grouped(sample.acknowledged),
        grouped(sample.seen),
        sample.at.as_secs_f64()
    )
}

impl Drawing {
    fn length(&self) -> Duration {
        self.samples.last().map_or(Duration::ZERO, |sample| sample.at).max(Duration::from_millis(1))
    }

    fn column(&self, at: Duration, columns: usize) -> usize {
        let share = at.as_secs_f64() / self.length().as_secs_f64();
        ((share * columns as f64) as usize).min(columns - 1)
    }

    /// The table and the strips of time.
    pub(crate) fn text(&self, title: &str, verdict: &Verdict, seen_by: &[(String, u64)]) -> String {
        let mut text = format!("\n{title}\n\npartition   records  redelivered  keys\n");
        for (partition, records) in verdict.records.iter().enumerate() {
            text.push_str(&format!(
                "{partition:>9} {:>9} {:>12}  {}\n",
                grouped(*records),
                grouped(verdict.redelivered[partition]),
                verdict.keys[partition].join(" ")
            ));
        }
        let redelivered: u64 = verdict.redelivered.iter().sum();
        let records: u64 = verdict.records.iter().sum();
        text.push_str(&format!("{:>9} {:>9} {:>12}\n\n", "all", grouped(records), grouped(redelivered)));
        if verdict.stored_again > 0 {
            text.push_str(&format!(
                "stored again     {} records, sent again after a kill and taken for new ones\n",
                grouped(verdict.stored_again)
            ));
        }
        for (name, seen) in seen_by {
            text.push_str(&format!("{name:<16} {} records\n", grouped(*seen)));
        }
        text.push_str(&format!("first start      ready after {}\n", milliseconds(self.first_start)));
        for (nth, kill) in self.kills.iter().enumerate() {
            text.push_str(&format!(
                "kill {}           at {:.1} s, ready after {}\n",
                nth + 1,
                kill.at.as_secs_f64(),
                milliseconds(kill.ready_after)
            ));
        }
        text.push_str(&format!(
            "\n{:<16} 0 s{:>width$.1} s\n",
            "",
            self.length().as_secs_f64(),
            width = STRIP_COLUMNS - 5
        ));
        text.push_str(&format!(
            "{:<16} {}\n",
            "acknowledged",
            self.strip_of_samples(|sample| sample.acknowledged)
        ));
        text.push_str(&format!("{:<16} {}\n", "seen", self.strip_of_samples(|sample| sample.seen)));
        text.push_str(&format!("{:<16} {}\n", "redelivered", self.strip_of_times(&self.redelivered_at)));
        let mut kills = vec![' '; STRIP_COLUMNS];
        for kill in &self.kills {
            let from = self.column(kill.at, STRIP_COLUMNS);
            let to = self.column(kill.at + kill.ready_after, STRIP_COLUMNS);
            kills[from..=to].fill('x');
        }
        text.push_str(&format!("{:<16} {}\n\n", "broker is away", String::from_iter(kills).trim_end()));
        text
    }

    /// How far a count had come at the end of each column's time.
    fn strip_of_samples(&self, count: impl Fn(&Sample) -> u64) -> String {
        let mut reached = [0; STRIP_COLUMNS];
        for sample in &self.samples {
            let column = self.column(sample.at, STRIP_COLUMNS);
            reached[column] = reached[column].max(count(sample));
        }
        let mut so_far = 0;
        let level = |count: u64| (count.min(self.records) * 8).div_ceil(self.records.max(1)) as usize;
        reached
            .into_iter()
            .map(|count| {
                so_far = count.max(so_far);
                BLOCKS[level(so_far).min(8)]
            })
            .collect()
    }

    /// How many events fell into each column, the fullest column at full height.
    fn strip_of_times(&self, times: &[Duration]) -> String {
        let mut counts = [0usize; STRIP_COLUMNS];
        for at in times {
            counts[self.column(*at, STRIP_COLUMNS)] += 1;
        }
        let fullest = counts.iter().copied().max().unwrap_or(0).max(1);
        let strip: String = counts.iter().map(|count| BLOCKS[(count * 8).div_ceil(fullest)]).collect();
        strip.trim_end().to_owned()
    }

    /// The course over time: both counts as lines, redelivery as bars at the foot, the broker's absences in red.
    pub(crate) fn svg(&self, title: &str) -> String {
        const WIDTH: f64 = 960.0;
        const HEIGHT: f64 = 420.0;
        const LEFT: f64 = 80.0;
        const TOP: f64 = 50.0;
        const RIGHT: f64 = 20.0;
        const BOTTOM: f64 = 50.0;
        let most = self.samples.iter().map(|sample| sample.seen.max(sample.acknowledged)).max().unwrap_or(0);
        let most = most.max(self.records).max(1) as f64;
        let length = self.length().as_secs_f64();
        let x = |at: Duration| LEFT + at.as_secs_f64() / length * (WIDTH - LEFT - RIGHT);
        let y = |count: f64| HEIGHT - BOTTOM - count / most * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"13\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"28\" font-size=\"17\">{title}</text>\n"
        );
        for kill in &self.kills {
            let (from, to) = (x(kill.at), x(kill.at + kill.ready_after));
            svg.push_str(&format!(
                "<rect x=\"{from:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#d33\" opacity=\"0.35\"/>\n\
                 <text x=\"{from:.1}\" y=\"{:.1}\" fill=\"#a00\" font-size=\"11\">{}</text>\n",
                (to - from).max(1.0),
                HEIGHT - TOP - BOTTOM,
                TOP - 4.0,
                milliseconds(kill.ready_after)
            ));
        }
        let columns = 240;
        let mut counts = vec![0usize; columns];
        for at in &self.redelivered_at {
            counts[self.column(*at, columns)] += 1;
        }
        let fullest = counts.iter().copied().max().unwrap_or(0).max(1) as f64;
        for (column, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            let height = *count as f64 / fullest * 60.0;
            svg.push_str(&format!(
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"3\" height=\"{height:.1}\" fill=\"#c80\"/>\n",
                LEFT + column as f64 / columns as f64 * (WIDTH - LEFT - RIGHT),
                HEIGHT - BOTTOM - height
            ));
        }
        for (colour, count) in [
            ("#27a", (|sample: &Sample| sample.acknowledged) as fn(&Sample) -> u64),
            ("#183", |sample: &Sample| sample.seen),
        ] {
            let points: Vec<String> = self
                .samples
                .iter()
                .map(|sample| format!("{:.1},{:.1}", x(sample.at), y(count(sample) as f64)))
                .collect();
            svg.push_str(&format!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n",
                points.join(" ")
            ));
        }
        for quarter in 0..=4 {
            let share = f64::from(quarter) / 4.0;
            svg.push_str(&format!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.1} s</text>\n",
                LEFT - 6.0,
                y(most * share) + 4.0,
                grouped((most * share) as u64),
                LEFT + share * (WIDTH - LEFT - RIGHT),
                HEIGHT - BOTTOM + 18.0,
                length * share
            ));
        }
        svg.push_str(&format!(
            "<text x=\"{LEFT}\" y=\"{:.1}\"><tspan fill=\"#27a\">acknowledged</tspan>  <tspan fill=\"#183\">seen</tspan>  \
             <tspan fill=\"#c80\">redelivered (its own scale)</tspan>  <tspan fill=\"#a00\">SIGKILL until ready (time above)</tspan></text>\n</svg>\n",
            HEIGHT - 10.0
        ));
        svg
    }
}

fn milliseconds(duration: Duration) -> String {
    format!("{} ms", grouped(duration.as_millis() as u64))
}

/// A number with a comma between groups of three digits.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawing() -> Drawing {
        let second = Duration::from_secs;
        Drawing {
            records: 100,
            samples: (0..=10)
                .map(|at| Sample { at: second(at), acknowledged: at * 10, seen: at * 9 })
                .collect(),
            kills: vec![Kill { at: second(5), ready_after: Duration::from_millis(1500) }],
            redelivered_at: vec![second(7), second(7), second(8)],
            first_start: Duration::from_millis(80),
        }
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 336_776].map(grouped), ["0", "999", "1,000", "336,776"]);
    }

    #[test]
    fn strips_rise_to_full_height_and_mark_their_times() {
        let drawing = drawing();
        let strip = drawing.strip_of_samples(|sample| sample.acknowledged);
        assert_eq!(strip.chars().count(), STRIP_COLUMNS);
        assert!(strip.starts_with(' ') && strip.ends_with('█'), "{strip}");
        let redelivered = drawing.strip_of_times(&drawing.redelivered_at);
        assert_eq!(redelivered.trim(), "█      ▄", "{redelivered}");
    }

    #[test]
    fn the_svg_draws_both_lines_and_the_absence() {
        let svg = drawing().svg("100 flights");
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains(">1,500 ms<") && svg.trim_end().ends_with("</svg>"));
    }

    #[test]
    fn the_bar_shows_both_counts() {
        let sample = Sample { at: Duration::from_secs(1), acknowledged: 50, seen: 25 };
        let bar = progress_bar(&sample, 100);
        assert_eq!(
            (bar.matches('█').count(), bar.matches('▒').count(), bar.matches('·').count()),
            (10, 10, 20)
        );
    }
}
