#![allow(clippy::unwrap_used)]
use super::super::schedule::Schedule;

#[test]
fn expressions_read_as_people_say_them() {
    for (expression, words) in [
        ("15 1 * * *", "every day at 01:15"),
        ("0 15 1 * * *", "every day at 01:15"),
        ("@daily", "every day at 00:00"),
        ("30 15 1 * * *", "every day at 01:15:30"),
        ("0 8,12,18 * * *", "every day at 08:00, 12:00 and 18:00"),
        ("@hourly", "every hour"),
        ("20 * * * *", "every hour at minute 20"),
        ("10,40 * * * *", "every hour at the minutes 10 and 40"),
        ("* * * * *", "every minute"),
        ("*/5 * * * *", "every 5 minutes"),
        (
            "*/7 * * * *",
            "every hour at the minutes 0, 7, 14, 21, 28, 35, 42, 49 and 56",
        ),
        ("* * * * * *", "every second"),
        ("*/10 * * * * *", "every 10 seconds"),
        ("30 */5 * * * *", "every 5 minutes and 30 seconds"),
        ("0 */2 * * *", "every 2 hours"),
        ("30 */2 * * *", "every hour at minute 30, in every 2nd hour"),
        (
            "0 9-17 * * 1-5",
            "every hour from 09:00 to 17:00, Monday to Friday",
        ),
        ("*/15 9-17 * * *", "every 15 minutes from 09:00 to 17:59"),
        (
            "*/15 1,3,7 * * *",
            "every 15 minutes, in the hours 01, 03 and 07",
        ),
        (
            "0 8 * * 1,3,5",
            "every Monday, Wednesday and Friday at 08:00",
        ),
        ("0 8 * * 6,7", "every Saturday and Sunday at 08:00"),
        ("@weekly", "every Sunday at 00:00"),
        ("0 0 1 * *", "every month on the 1st at 00:00"),
        (
            "30 4 1,15 * 5",
            "every month on the 1st and 15th and every Friday at 04:30",
        ),
        ("0 0 29 2 *", "on the 29th in February at 00:00"),
        ("@yearly", "on the 1st in January at 00:00"),
        ("0 12 * jan,jul *", "every day in January and July at 12:00"),
        ("0 0 0 1 1 * 2037", "on the 1st in January in 2037 at 00:00"),
    ] {
        let told = Schedule::parse(expression, "UTC").unwrap().describe();
        assert_eq!(told, words, "{expression}");
    }
}

#[test]
fn next_runs_are_told_from_where_one_stands() {
    let schedule = Schedule::parse("15 1 * * *", "Europe/Amsterdam").unwrap();
    // 2026-03-10T23:30:00Z is the 11th, 00:30, in Amsterdam.
    let now = 1_773_185_400_000;
    let hour = 3_600_000;
    for (after, words) in [
        (hour, "today 01:30"),
        (24 * hour + 7_000, "tomorrow 00:30:07"),
        (48 * hour, "Friday 00:30"),
        (20 * 24 * hour, "31 March 01:30"),
        (400 * 24 * hour, "15 April 2027 01:30"),
    ] {
        assert_eq!(schedule.say(now + after, now), words);
    }
}
