//! Labels: the names that the settings file gives to directories, vessels and links.

use std::fmt;
use std::sync::Arc;

macro_rules! label {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Creates the label from its text in the settings.
            pub fn new(label: &str) -> Self {
                Self(label.into())
            }

            /// Returns the label's text in the settings.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

label!(
    /// The name of a directory: the `x` of `[Directory x]`.
    DirectoryName
);
label!(
    /// The name of a vessel: the `y` of `[Vessel y]`.
    VesselName
);
label!(
    /// The name of a link: the `z` of `[Link z]`.
    LinkName
);
