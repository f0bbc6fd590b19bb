//! A run's ratios as one picture: a line for each figure of each workload, from its smallest to its largest ratio to
//! Kafka, on a scale where half and double are equally far from the same.

use super::contender::Contender;
use super::goal::Standing;
use super::ratio::ratio;
use super::report::{Report, figure};
use super::row::Metric;

const LEFT: f64 = 640.0;
const WIDTH: f64 = 480.0;
const LINE_HEIGHT: f64 = 22.0;
const TOP: f64 = 112.0;
const BETTER: &str = "#2a7f3f";
const WORSE: &str = "#b03030";
/// The scale reaches from this to its inverse.
const SMALLEST: f64 = 1.0 / 64.0;

/// The picture. What lies beyond the scale is drawn at its end, its figure says how far.
pub(super) fn svg(report: &Report) -> String {
    let mut lines = Vec::new();
    for (workload, rows) in &report.played {
        for metric in Metric::ALL {
            if let Some(ratio) = ratio(rows, Contender::Ouzel, Contender::Kafka, metric) {
                lines.push((
                    format!("{} [{}]: {}", workload.name, workload.mode.word(), metric.name()),
                    metric,
                    ratio,
                ));
            }
        }
    }
    let bottom = TOP + LINE_HEIGHT * lines.len() as f64;
    let verdicts = report.verdicts();
    let goals_top = bottom + 62.0;
    let (width, height) = (LEFT + WIDTH + 90.0, goals_top + LINE_HEIGHT * verdicts.len() as f64 + 20.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"24\" font-size=\"16\">ouzel by Apache Kafka {}: ratio of each figure, median, smallest and largest</text>\n\
         <text x=\"12\" y=\"44\" fill=\"#555\">{}</text>\n",
        escaped(report.facts["kafka"].as_str().unwrap_or("?")),
        escaped(&machine_line(report)),
    );
    // A line for each sentence: what is cut off at the edge is not read.
    for (index, sentence) in report.caveat().split(". ").enumerate() {
        svg.push_str(&format!(
            "<text x=\"12\" y=\"{}\" fill=\"#555\">{}</text>\n",
            62 + 18 * index,
            escaped(sentence)
        ));
    }
    for mark in [1.0 / 64.0, 1.0 / 16.0, 0.25, 1.0, 4.0, 16.0, 64.0] {
        let x = across(mark);
        let (colour, label) = if mark == 1.0 { ("#333", "1".to_owned()) } else { ("#ddd", figure(mark)) };
        svg.push_str(&format!(
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\" stroke=\"{colour}\"/>\n\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{label}</text>\n",
            TOP - 6.0
        ));
    }
    for (index, (label, metric, ratio)) in lines.iter().enumerate() {
        let y = TOP + LINE_HEIGHT * (index as f64 + 0.5);
        let is_better = (ratio.median > 1.0) == metric.more_is_better();
        let colour = if is_better { BETTER } else { WORSE };
        svg.push_str(&format!(
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n\
             <line x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"{colour}\" stroke-width=\"3\"/>\n\
             <circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{colour}\"/>\n\
             <text x=\"{}\" y=\"{:.1}\">{}</text>\n",
            LEFT - 10.0,
            y + 4.0,
            escaped(label),
            across(ratio.min),
            across(ratio.max),
            across(ratio.median),
            LEFT + WIDTH + 14.0,
            y + 4.0,
            figure(ratio.median),
        ));
    }
    svg.push_str(&format!(
        "<text x=\"12\" y=\"{:.1}\" fill=\"#555\">green: ouzel is better; red: Kafka is. Left of 1: ouzel's figure is smaller.</text>\n",
        bottom + 28.0
    ));
    svg.push_str(&format!("<text x=\"12\" y=\"{goals_top:.1}\" font-size=\"14\">goals</text>\n"));
    for (index, verdict) in verdicts.iter().enumerate() {
        let y = goals_top + LINE_HEIGHT * (index as f64 + 1.0);
        let colour = match verdict.standing {
            Standing::Met | Standing::MetAtTheFloor => BETTER,
            Standing::Missed(_) => WORSE,
            Standing::NotJudged(_) => "#888",
        };
        svg.push_str(&format!(
            "<text x=\"{}\" y=\"{y:.1}\" text-anchor=\"end\">{}</text>\n\
             <text x=\"{LEFT}\" y=\"{y:.1}\" fill=\"{colour}\">{}: {}</text>\n",
            LEFT - 10.0,
            escaped(&format!("{} [{}]", verdict.goal.what, verdict.workload)),
            escaped(&verdict.word()),
            escaped(&verdict.figures()),
        ));
    }
    svg.push_str("</svg>\n");
    svg
}

/// Where a ratio lies on the picture.
fn across(ratio: f64) -> f64 {
    let ratio = ratio.clamp(SMALLEST, 1.0 / SMALLEST);
    LEFT + WIDTH * (0.5 - ratio.ln() / (2.0 * SMALLEST.ln()))
}

fn machine_line(report: &Report) -> String {
    let fact = |name: &str| match &report.facts[name] {
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    format!(
        "{}, {} cores, Linux {}, {}; ouzel {}; {}",
        fact("cpu"),
        fact("cores"),
        fact("kernel"),
        fact("filesystem"),
        fact("commit"),
        fact("java")
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::super::report::tests::report;
    use super::*;

    #[test]
    fn half_and_double_are_equally_far_from_the_same() {
        let middle = across(1.0);
        assert!((middle - (LEFT + WIDTH / 2.0)).abs() < 1e-9);
        assert!(((middle - across(0.5)) - (across(2.0) - middle)).abs() < 1e-9);
        assert_eq!((across(0.0001), across(1e9)), (LEFT, LEFT + WIDTH));
    }

    #[test]
    fn every_ratio_is_drawn_with_its_figure() {
        let svg = svg(&report(false));
        // CPU, throughput, RSS and start.
        assert_eq!(svg.matches("<circle").count(), 4);
        assert!(
            svg.contains("met: 0.200 x Kafka (&lt;= 0.25), 2.00 x null (&lt;= 1.4), 1 of 1 rounds"),
            "{svg}"
        );
        assert!(svg.contains(">0.200<") && svg.contains("[no flush]") && svg.ends_with("</svg>\n"));
    }
}
