//! `[Link z]`: a link over which vessels are reached, such as a satellite terminal or a modem.

use std::net::IpAddr;

use super::budget::Budget;
use super::cost::Cost;
use super::priorities::Priorities;
use super::rate::RateSchedule;
use super::reserve::Reserve;
use super::schedule::Schedule;
use crate::names::LinkName;

/// `[Link z]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Link {
    /// The `z` of `[Link z]`.
    pub name: LinkName,
    /// `Interface`: the network interface that the connections use; `None`: the routes decide.
    pub interface: Option<String>,
    /// `BindAddress`: the address of this host that the connections use; `None`: the routes decide.
    pub bind_address: Option<IpAddr>,
    /// `Preference`: of the ways that are up, the one with the highest preference is used.
    pub preference: u32,
    /// `Cost`: the price of bytes on the link.
    pub cost: Cost,
    /// `RateLimit`: the maximum rate of file data over the link to all vessels together.
    pub rate_limit: RateSchedule,
    /// `Schedule` and `Schedule.tz`: when the link may be used.
    pub schedule: Schedule,
    /// `Budget`: the maximum number of bytes on the link for all vessels together.
    pub budget: Budget,
    /// `BudgetReserve`: the part of the budget that is kept for files of high priority.
    pub reserve: Option<Reserve>,
    /// `Priorities`: the priorities of the files that may go over the link.
    pub priorities: Priorities,
}
