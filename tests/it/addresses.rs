//! Every way of writing where a vessel is: names and addresses of both families, with and without a port.

use std::fs;

use crate::fleet::Fleet;
use crate::fleet::vessel::Vessel;

/// Whether this machine has IPv6 on its loopback interface; says aloud what is skipped when not.
fn has_ipv6() -> bool {
    let has = std::net::TcpListener::bind("[::1]:0").is_ok();
    if !has {
        println!("!!! SKIPPED: there is no IPv6 here");
    }
    has
}

/// An address of this machine's that holds on one link only, with the link's name; none on most machines without a network.
fn link_local() -> Option<String> {
    let table = fs::read_to_string("/proc/net/if_inet6").ok()?;
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [hex, _, _, scope, flags, name] = fields[..] else { return None };
        // Scope 20 is the link's; an address with other flags than "permanent" may not be usable yet.
        let address = std::net::Ipv6Addr::from(u128::from_str_radix(hex, 16).ok()?);
        (scope == "20" && flags == "80").then(|| format!("{address}%{name}"))
    })
}

#[test]
fn a_vessel_is_reached_by_ipv6_with_the_port_in_either_place() {
    let scoped = link_local();
    let mut vessels = vec!["bare", "brackets", "port", "name"];
    vessels.extend(scoped.as_ref().map(|_| "scope"));
    let plan = vessels.iter().fold(Fleet::new(), |plan, name| plan.openssh(name));
    let Some(fleet) = plan.start().filter(|_| has_ipv6()) else { return };
    let mut text = fs::read_to_string(fleet.settings()).unwrap();
    let mut known = String::new();
    let scoped = scoped.as_deref().unwrap_or("::1");
    for name in &vessels {
        let vessel: &Vessel = fleet.vessel(name);
        let port = vessel.port();
        let (own, host) = (format!("Address = 127.0.0.1\nPort = {port}\n"), "::1");
        vessel.configure(&format!("ListenAddress {}", if *name == "scope" { scoped } else { host }));
        let (written, host) = match *name {
            "bare" => (format!("Address = ::1\nPort = {port}\n"), host),
            "brackets" => (format!("Address = [::1]\nPort = {port}\n"), host),
            "port" => (format!("Address = [::1]:{port}\n"), host),
            "name" => (format!("Address = localhost:{port}\n"), "localhost"),
            _ => (format!("Address = [{scoped}]:{port}\n"), scoped),
        };
        text = text.replace(&own, &written);
        known.push_str(&vessel.known_hosts_line().replace("127.0.0.1", host));
    }
    fleet.write_settings(&text);
    fs::write(fleet.known_hosts(), known).unwrap();
    fleet.put("cargo", b"cargo");
    let done = fleet.once();
    assert_eq!(done.code, Some(0), "{done:?}");
    vessels.iter().for_each(|vessel| fleet.assert_equal(vessel, "cargo", b"cargo"));
}

#[test]
fn trust_records_an_ipv6_address_as_ssh_does() {
    let Some(fleet) = Fleet::new().openssh("open").unknown().start().filter(|_| has_ipv6()) else { return };
    let port = fleet.vessel("open").port();
    fleet.vessel("open").configure("ListenAddress ::1");
    let text = fs::read_to_string(fleet.settings()).unwrap();
    fleet.write_settings(
        &text.replace(&format!("Address = 127.0.0.1\nPort = {port}\n"), &format!("Address = [::1]:{port}\n")),
    );
    assert_eq!(fleet.call(&["trust", "open", "--yes"], "").code, Some(0));
    let known = fs::read_to_string(fleet.known_hosts()).unwrap();
    assert!(known.starts_with(&format!("[::1]:{port} ssh-ed25519 ")), "{known}");
    assert_eq!(fleet.call(&["check"], "").code, Some(0));
}
