//! Vessels with several ways: which one carries, when another takes over, and what a link's budget lets through.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::fleet::Fleet;
use crate::fleet::clocked::SetClock;
use crate::fleet::content::{MIB, content};
use crate::fleet::namespace::Mounts;
use crate::fleet::plan::FleetPlan;
use crate::fleet::port::free_port;
use crate::fleet::proxy::Proxy;
use crate::fleet::wait::{never_within, wait_for, wait_until};

/// A vessel that is reached over two links, each of which counts and can be taken down.
pub(crate) struct TwoWays {
    pub(crate) fleet: Fleet,
    pub(crate) first: Proxy,
    pub(crate) second: Proxy,
}

impl TwoWays {
    /// `first` and `second` are the keys of the links.
    pub(crate) fn start(plan: FleetPlan, first: &str, second: &str) -> Option<Self> {
        Self::with_keys(plan, &[], first, second)
    }

    /// The vessel has these keys as well.
    pub(crate) fn with_keys(plan: FleetPlan, keys: &[(&str, &str)], first: &str, second: &str) -> Option<Self> {
        let plan = keys.iter().fold(plan.openssh("tern"), |plan, (key, value)| plan.key(key, value));
        let fleet = plan.start()?;
        let vessel = fleet.vessel("tern");
        let ways = Self { first: Proxy::start(vessel.port()), second: Proxy::start(vessel.port()), fleet };
        let (vessel, text) = (ways.fleet.vessel("tern"), fs::read_to_string(ways.fleet.settings()).unwrap());
        let own = format!("Address = 127.0.0.1\nPort = {}\n", vessel.port());
        let address = |proxy: &Proxy| format!("127.0.0.1:{}", proxy.port());
        let both = format!("Address.lte = {}\nAddress.vsat = {}\n", address(&ways.first), address(&ways.second));
        assert!(text.contains(&own), "{text}");
        ways.fleet
            .write_settings(&format!("{}[Link lte]\n{first}\n[Link vsat]\n{second}\n", text.replace(&own, &both)));
        let known = vessel.known_hosts_line().replace(&vessel.port().to_string(), &ways.first.port().to_string());
        fs::write(ways.fleet.known_hosts(), known).unwrap();
        Some(ways)
    }

    pub(crate) fn status(&self) -> Value {
        let status = self.fleet.call(&["status", "--json"], "");
        serde_json::from_str(&status.stdout).unwrap()
    }
}

/// Waits until bytes of files go over a link, and returns how long that took.
fn until_it_carries(link: &Proxy) -> Duration {
    let (since, before) = (Instant::now(), link.sent());
    wait_until("the other way to carry", || link.sent() > before + (256 << 10));
    since.elapsed()
}

#[test]
fn the_next_way_takes_over_within_a_file_and_gives_back() {
    let rounds: u64 = std::env::var("CONTENTMONSTER_SWITCHES").map_or(2, |text| text.parse().unwrap());
    let Some(ways) = TwoWays::start(Fleet::new(), "Preference = 10", "") else { return };
    let (first, second) = (&ways.first, &ways.second);
    let rate = 4 * MIB as u64;
    [first, second].iter().for_each(|link| link.limit(rate));
    let size = MIB * usize::try_from(rounds * 4 * 9 + 24).unwrap();
    let bytes = content(1, size);
    ways.fleet.put("big", &bytes);
    let daemon = ways.fleet.run();
    until_it_carries(first);
    let (mut over, mut back) = (Duration::ZERO, Duration::ZERO);
    for round in 0..rounds {
        // A way counts as steady once it has carried for 4 s.
        std::thread::sleep(Duration::from_millis(4500));
        first.take_down(true);
        over = over.max(until_it_carries(second));
        first.take_down(false);
        // The connections of before the outage are given up.
        first.cut();
        let took = until_it_carries(first);
        println!("round {round}: over within {over:?}, back after {took:?}");
        back = back.max(took);
    }
    assert!(over < Duration::from_millis(3500) && back < Duration::from_millis(3500), "{over:?}, {back:?}");
    [first, second].iter().for_each(|link| link.limit(0));
    ways.fleet.wait_until_served("tern", "big", &bytes);
    ways.fleet.wait_until_retired("big");
    ways.fleet.wait_until_tidy("tern");
    let sent = first.sent() + second.sent();
    println!("{} MiB were sent for {} MiB", sent / MIB as u64, size / MIB);
    let in_flight = 3 * MIB as u64 * 2 * rounds + size as u64 / 20;
    assert!(sent < size as u64 + in_flight, "{sent} bytes were sent for {size}");
    daemon.terminate();
}

#[test]
fn the_way_with_the_highest_preference_carries_then_the_cheapest() {
    for (first, second, carries) in [
        ("Preference = 1", "Preference = 2", "vsat"),
        ("Cost = 0.25 EUR/MB", "Cost = 12 EUR/GB", "vsat"),
        ("", "", "lte"),
        ("Preference = 5\nCost = 9/MB", "Cost = 0", "lte"),
    ] {
        let Some(ways) = TwoWays::start(Fleet::new(), first, second) else { return };
        ways.fleet.put("cargo", b"cargo");
        let daemon = ways.fleet.run();
        daemon.wait_for_log(&["tern", "connected", &format!("way=\"{carries}\"")]);
        ways.fleet.wait_until_served("tern", "cargo", b"cargo");
        let status = wait_for("the status to show the way", || {
            let status = ways.status();
            let shown = status["vessels"][0]["ways"].as_array().unwrap().clone();
            shown.iter().any(|way| way["carries"] == true).then_some(shown)
        });
        let way = |name: &str| status.iter().find(|way| way["name"] == name).unwrap().clone();
        assert_eq!((way(carries)["why"].as_str(), way(carries)["carries"].as_bool()), (Some("preferred"), Some(true)));
        daemon.terminate();
    }
}

#[test]
fn a_way_that_leads_to_another_host_is_refused_and_the_other_one_carries() {
    let Some(fleet) = Fleet::new().openssh("tern").openssh("impostor").start() else { return };
    let (tern, impostor) = (fleet.vessel("tern").port(), fleet.vessel("impostor").port());
    let text = fs::read_to_string(fleet.settings()).unwrap();
    let text = text.split("[Vessel impostor]").next().unwrap();
    let own = format!("Address = 127.0.0.1\nPort = {tern}\n");
    let known = fleet.vessel("tern").known_hosts_line();
    // The impostor's own key is known, too, under its own address.
    fs::write(fleet.known_hosts(), format!("{known}{}", fleet.vessel("impostor").known_hosts_line())).unwrap();
    let addresses = format!("Address = 127.0.0.1:{tern}\nAddress.wrong = 127.0.0.1:{impostor}\n");
    fleet.write_settings(&format!("{}[Link wrong]\nPreference = 9\n", text.replace(&own, &addresses)));
    fs::write(fleet.known_hosts(), known).unwrap();
    fleet.put("cargo", b"cargo");
    let daemon = fleet.run();
    fleet.wait_until_served("tern", "cargo", b"cargo");
    assert!(fleet.held("impostor", "cargo").is_none());
    daemon.terminate();
    let done = fleet.call(&["check"], "");
    done.must_say(&["tern", "wrong", "host key"]);
}

#[test]
fn connections_use_the_links_interface_and_address() {
    let Some(ways) =
        TwoWays::start(Fleet::new(), "Interface = nope0\nPreference = 9", "Interface = lo\nBindAddress = 127.0.0.9")
    else {
        return;
    };
    ways.fleet.put("cargo", b"cargo");
    let daemon = ways.fleet.run();
    daemon.wait_for_log(&["tern", "connected", "way=\"vsat\""]);
    ways.fleet.wait_until_served("tern", "cargo", b"cargo");
    let status = ways.status();
    let why = status["vessels"][0]["ways"][1]["why"].as_str().unwrap().to_owned();
    assert!(why.contains("cannot use the interface nope0"), "{why}");
    daemon.terminate();
}

#[test]
fn a_spent_budget_stops_before_it_is_exceeded_and_goes_on_the_next_day() {
    let budget = 3_000_000;
    let plan =
        Fleet::new().monster("ChunkSize", "1 MiB").openssh("tern").key("Budget", "3 MB/day, 100 MB/month").proxied();
    let Some(fleet) = plan.start() else { return };
    let link = fleet.vessel("tern").link();
    link.limit(2 * MIB as u64);
    let bytes = content(1, 7 * MIB);
    fleet.put("big", &bytes);
    let clock = SetClock::new(fleet.path("clock"));
    let mounts = fleet.keep_mounts(&Mounts::default());
    let daemon = fleet.run_clocked(&mounts, &clock);
    daemon.wait_for_log(&["tern", "away", "the vessel's budget of 3 MB/day is spent", "deliveries continue at"]);
    let went = link.sent() + link.received();
    println!("{went} of {budget} bytes went over the link, without TCP's headers");
    assert!(went <= budget && went > budget * 8 / 10, "{went}");
    // Neither a restart nor a kill begins a new day.
    daemon.kill9();
    let daemon = fleet.run_clocked(&mounts, &clock);
    daemon.wait_for_log(&["tern", "away", "is spent"]);
    never_within(Duration::from_secs(1), "more than a login", || link.sent() + link.received() > budget + 20_000);
    let status: Value = serde_json::from_str(&fleet.call(&["status", "--json"], "").stdout).unwrap();
    let shown = &status["budgets"][0];
    assert_eq!((shown["of"].as_str(), shown["bytes"].as_u64()), (Some("vessel"), Some(budget)));
    assert!(shown["used"].as_u64().unwrap() <= budget, "{shown}");
    fleet.call(&["why", "in/big"], "").must_say(&["tern", "away", "budget", "is spent"]);
    for day in 1..=2 {
        clock.set(day * 86_400);
        wait_until("the link to carry again", || {
            link.sent() + link.received() > went + budget * 6 / 10 * day.unsigned_abs()
        });
    }
    fleet.wait_until_served("tern", "big", &bytes);
    daemon.terminate();
}

#[test]
fn small_files_that_are_sent_at_once_stay_within_the_budget() {
    let budget = 2_000_000;
    let plan = Fleet::new().monster("ChunkSize", "1 MiB").openssh("tern").key("Budget", "2 MB/day").proxied();
    let Some(fleet) = plan.start() else { return };
    let link = fleet.vessel("tern").link();
    // So slow that most of the files wait for each other, each with a write that was allowed.
    link.limit(400_000);
    (0..60).for_each(|number| fleet.put(format!("{number}"), &content(number, 100_000)));
    let daemon = fleet.run();
    daemon.wait_for_log(&["tern", "away", "the vessel's budget of 2 MB/day is spent"]);
    let went = link.sent() + link.received();
    println!("{went} of {budget} bytes went over the link, without TCP's headers");
    assert!(went <= budget && went > budget * 8 / 10, "{went}");
    daemon.terminate();
}

#[test]
fn a_higher_budget_takes_effect_with_a_reload() {
    let plan = Fleet::new().monster("ChunkSize", "1 MiB").openssh("tern").key("Budget", "2 MB/day").proxied();
    let Some(fleet) = plan.start() else { return };
    fleet.vessel("tern").link().limit(2 * MIB as u64);
    let bytes = content(1, 4 * MIB);
    fleet.put("big", &bytes);
    let daemon = fleet.run();
    daemon.wait_for_log(&["tern", "away", "the vessel's budget of 2 MB/day is spent"]);
    let settings = fs::read_to_string(fleet.settings()).unwrap();
    fleet.write_settings(&settings.replace("2 MB/day", "20 MB/day"));
    daemon.reload();
    fleet.wait_until_served("tern", "big", &bytes);
    daemon.terminate();
}

#[test]
fn a_program_that_is_killed_again_and_again_counts_its_logins() {
    let plan = Fleet::new().monster("ChunkSize", "1 MiB").openssh("tern").key("Budget", "3 MB/day").proxied();
    let Some(fleet) = plan.start() else { return };
    let link = fleet.vessel("tern").link();
    for _ in 0..8 {
        let daemon = fleet.run();
        daemon.wait_for_log(&["tern", "connected"]);
        daemon.kill9();
    }
    let carried = link.sent() + link.received();
    let daemon = fleet.run();
    let used = wait_for("the status", || {
        let status: Value = serde_json::from_str(&fleet.call(&["status", "--json"], "").stdout).unwrap();
        (!status["daemon"].is_null()).then(|| status["budgets"][0]["used"].as_u64().unwrap())
    });
    println!("{carried} bytes went over the link, {used} count as used");
    assert!((carried..carried + 300_000).contains(&used), "{used} of {carried}");
    daemon.terminate();
}

#[test]
fn a_link_whose_budget_is_spent_gives_way_to_the_next_one() {
    let scratch = tempfile::tempdir().unwrap();
    let told = scratch.path().join("told");
    let words = "echo $CONTENTMONSTER_BUDGET $CONTENTMONSTER_PERIOD $CONTENTMONSTER_PERCENT";
    let command = format!("sh -c '{words} >>{}'", told.display());
    let plan = Fleet::new().monster("ChunkSize", "1 MiB").monster("OnBudget", &command);
    // A webhook that is down must not delay the command.
    let plan = plan.monster("Webhook", &format!("http://127.0.0.1:{}", free_port()));
    let Some(ways) = TwoWays::start(plan, "Budget = 2 MB/month\nPreference = 3", "Cost = 3 EUR/MB") else { return };
    [&ways.first, &ways.second].iter().for_each(|link| link.limit(2 * MIB as u64));
    let bytes = content(1, 6 * MIB);
    ways.fleet.put("big", &bytes);
    let daemon = ways.fleet.run();
    ways.fleet.wait_until_served("tern", "big", &bytes);
    daemon.wait_for_log(&["tern", "connected", "way=\"vsat\""]);
    let (first, second) = (ways.first.sent() + ways.first.received(), ways.second.sent());
    println!("{first} bytes over the first, {second} over the second");
    assert!((1_600_000..=2_000_000).contains(&first) && second > 4_000_000, "{first}, {second}");
    daemon.wait_for_log(&["80 % of the budget of 2 MB/month are used", "link lte"]);
    wait_until("OnBudget to run for both shares", || {
        fs::read_to_string(&told).is_ok_and(|text| text == "link lte month 80\nlink lte month 100\n")
    });
    wait_until("the cost to be shown", || {
        let way = ways.status()["vessels"][0]["ways"][1].clone();
        way["cost_month"].as_f64().unwrap() > 12.0 && way["why"].as_str().is_some_and(|why| why.contains("is spent"))
    });
    daemon.terminate();
}

#[test]
fn a_link_carries_only_while_its_schedule_is_open() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() / 3600;
    let hour = |later: u64| format!("{:02}:00", (now + later) % 24);
    let schedule = format!("Schedule = {}-{}\nSchedule.tz = UTC", hour(3), hour(4));
    let Some(ways) = TwoWays::start(Fleet::new(), &schedule, &schedule) else { return };
    ways.fleet.put("cargo", b"cargo");
    let clock = SetClock::new(ways.fleet.path("clock"));
    let mounts = ways.fleet.keep_mounts(&Mounts::default());
    let daemon = ways.fleet.run_clocked(&mounts, &clock);
    daemon.wait_for_log(&["tern", "away", "the schedule of the link lte is closed", "deliveries continue at"]);
    assert_eq!(ways.first.sent() + ways.second.sent(), 0, "nothing is sent, not even a login");
    clock.set(3 * 3600);
    ways.fleet.wait_until_served("tern", "cargo", b"cargo");
    clock.set(4 * 3600);
    wait_until("the connection to be closed", || {
        daemon.log().iter().filter(|line| line.contains("is closed")).count() > 1
    });
    ways.fleet.put("late", b"late");
    never_within(Duration::from_secs(1), "a delivery outside the schedule", || {
        ways.fleet.held("tern", "late").is_some()
    });
    daemon.terminate();
}

#[test]
fn when_no_way_is_up_the_reason_names_each_of_them() {
    let Some(ways) = TwoWays::start(Fleet::new(), "Preference = 10", "Interface = nope0") else { return };
    ways.fleet.vessel("tern").stop();
    ways.fleet.put("cargo", b"cargo");
    let daemon = ways.fleet.run();
    daemon.wait_for_log(&["tern", "away", "lte: ", "vsat: ", "cannot use the interface nope0"]);
    ways.fleet.vessel("tern").start();
    ways.fleet.wait_until_served("tern", "cargo", b"cargo");
    daemon.terminate();
}

#[test]
fn a_tunnel_and_an_address_are_ways_like_others() {
    let plan = Fleet::new().openssh("tern").openssh("gate");
    let Some(fleet) = plan.start() else { return };
    let port = fleet.vessel("tern").port();
    let text = fs::read_to_string(fleet.settings()).unwrap();
    let text = text.split("[Vessel gate]").next().unwrap();
    let (own, socket) = (format!("Address = 127.0.0.1\nPort = {port}\n"), fleet.path("tern.sock"));
    let both = format!("Address = unix:{}, 127.0.0.1:{port}\nHostKeyAlias = tern\n", socket.display());
    fleet.write_settings(&text.replace(&own, &both));
    let known = fleet.vessel("tern").known_hosts_line().replace(&format!("[127.0.0.1]:{port}"), "tern");
    fs::write(fleet.known_hosts(), known).unwrap();
    fleet.put("cargo", b"cargo");
    let daemon = fleet.run();
    fleet.wait_until_served("tern", "cargo", b"cargo");
    daemon.wait_for_log(&["tern", "connected", &format!("way=\"127.0.0.1:{port}\"")]);
    let _tunnel = crate::dial_in::tunnel(&fleet, "tern", &socket.display().to_string());
    daemon.wait_for_log(&["tern", "switching to another way: a better way is available again", "unix:"]);
    fleet.put("more", b"more");
    fleet.wait_until_served("tern", "more", b"more");
    daemon.terminate();
}
