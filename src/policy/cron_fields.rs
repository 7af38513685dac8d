//! From the text of a cron expression to the `cron` crate's rules.
//!
//! The crate reads Quartz's dialect: six or seven fields, weekdays from Sunday = 1, day *and*
//! weekday both required, and blanks between fields optional, so that it takes the slip `*5` for
//! two fields. This translates cron(5)'s dialect into it and refuses the slips.

use std::fmt::Write as _;

/// Longest expression read, in bytes.
const MAX_EXPRESSION: usize = 256;

const WEEKDAYS: [&str; 7] = [
    "sunday",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
];

/// Reads an expression into one rule, or into two if day and weekday are both restricted and a
/// match of either is a tick.
pub(super) fn rules(expression: &str) -> Result<Vec<cron::Schedule>, String> {
    if expression.len() > MAX_EXPRESSION {
        return Err(format!("longer than {MAX_EXPRESSION} bytes"));
    }
    let expression = shorthand(expression.trim())?;
    let mut fields: Vec<&str> = expression.split_whitespace().collect();
    if fields.len() == 5 {
        fields.insert(0, "0");
    }
    let [second, minute, hour, day, month, weekday, year @ ..] = fields.as_slice() else {
        return Err("want five fields, six (seconds first) or seven (a year last)".into());
    };
    if year.len() > 1 {
        return Err("more than seven fields".into());
    }
    fields.iter().try_for_each(|field| check_form(field))?;

    let weekdays = weekdays(weekday)?;
    let year = year.first().unwrap_or(&"*");
    let rule = |day: &str, weekday: &str| {
        format!("{second} {minute} {hour} {day} {month} {weekday} {year}")
            .parse::<cron::Schedule>()
            .map_err(|error| one_line(&error.to_string()))
    };
    let open = |field: &str| field.starts_with(['*', '?']);
    if open(day) || open(weekday) {
        Ok(vec![rule(day, &weekdays)?])
    } else {
        Ok(vec![rule(day, "*")?, rule("*", &weekdays)?])
    }
}

/// The five fields a shorthand stands for; anything else as it is.
fn shorthand(expression: &str) -> Result<&str, String> {
    Ok(match expression {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        other if other.starts_with('@') => {
            return Err("want @yearly, @monthly, @weekly, @daily or @hourly".into());
        }
        other => other,
    })
}

/// Every field is a list of `atom`, `atom-atom`, either with `/step`, where an atom is `*`, `?`, a
/// number or a name. Whether the values fit is checked afterwards.
fn check_form(field: &str) -> Result<(), String> {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let name = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphabetic());
    let atom = |text: &str| matches!(text, "*" | "?") || number(text) || name(text);
    let well_formed = |element: &str| {
        let (range, step) = element.split_once('/').unwrap_or((element, "1"));
        let (start, end) = range.split_once('-').unwrap_or((range, "0"));
        atom(start) && (number(end) || name(end)) && number(step)
    };
    match field.split(',').all(well_formed) {
        true => Ok(()),
        false => Err(format!("bad field {field:?}")),
    }
}

/// A weekday field of cron(5) as a list in the crate's numbering (Sunday = 1).
fn weekdays(field: &str) -> Result<String, String> {
    if matches!(field, "*" | "?") {
        return Ok("*".into());
    }
    let mut chosen = [false; 7];
    for element in field.split(',') {
        let (start, end, step) = weekday_range(element)
            .ok_or_else(|| format!("bad weekday {element:?}; want 0 to 7 or names"))?;
        for day in (start..=end).step_by(step) {
            chosen[day % 7] = true;
        }
    }
    let mut list = String::new();
    for day in (0..7).filter(|day| chosen[*day]) {
        let comma = if list.is_empty() { "" } else { "," };
        // Writing to a String cannot fail.
        let _ = write!(list, "{comma}{}", day + 1);
    }
    Ok(list)
}

/// First day, last day (0 to 7) and step of one element; none if it is not valid.
fn weekday_range(element: &str) -> Option<(usize, usize, usize)> {
    let (range, step) = match element.split_once('/') {
        Some((range, step)) => (range, Some(step.parse().ok()?)),
        None => (element, None),
    };
    let (start, end) = match range.split_once('-') {
        Some((start, end)) => (weekday(start)?, weekday(end)?),
        None if matches!(range, "*" | "?") => (0, 6),
        // A single day with a step counts from there to the end of the week.
        None if step.is_some() => (weekday(range)?, 6),
        None => (weekday(range)?, weekday(range)?),
    };
    // `fri-sun` ends on Sunday as the seventh day.
    let end = if end == 0 && start > 0 { 7 } else { end };
    let step = step.unwrap_or(1);
    (start <= end && (1..=7).contains(&step)).then_some((start, end, step))
}

/// A weekday by number (0 to 7) or by the first three letters or more of its name.
fn weekday(text: &str) -> Option<usize> {
    if let Ok(number) = text.parse::<usize>() {
        return (number <= 7).then_some(number);
    }
    let text = text.to_ascii_lowercase();
    WEEKDAYS
        .iter()
        .position(|name| text.len() >= 3 && name.starts_with(&text))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
