//! Arguments of the commands on volumes, directories and quotas.

use super::{quota, size};
use clap::{Args, Subcommand};
use ogee_proto::unit::ByteLen;

#[derive(Subcommand, Debug)]
pub(crate) enum VolumeCommand {
    /// Create a volume.
    Create(VolumeCreateArgs),
    /// List volumes.
    Ls(VolumeLsArgs),
    /// Show one volume.
    Show {
        /// Its name.
        name: String,
    },
    /// Grow a volume; attached users see the new size within seconds.
    Resize {
        /// Its name.
        name: String,
        /// Its new size.
        #[arg(long, value_parser = size)]
        size: ByteLen,
    },
    /// Call a volume something else, or put it into another directory. Who uses it goes on.
    Rename {
        /// Its name.
        from: String,
        /// Its new name.
        to: String,
    },
    /// Change whose a volume is, and its labels. What is not named stays as it is.
    Set(VolumeSetArgs),
    /// Where each chunk lives and who leads it.
    Locate {
        /// Its name.
        name: String,
    },
    /// Take a volume from a host that is gone.
    Detach {
        /// Its name.
        name: String,
    },
    /// Remove a volume and its data.
    Rm {
        /// Its name.
        name: String,
        /// Do it without asking.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Args, Debug)]
pub(crate) struct VolumeCreateArgs {
    /// Its name, or its directory and name, such as team/db1.
    pub(crate) name: String,
    /// Its size, such as 4GiB.
    #[arg(long, value_parser = size)]
    pub(crate) size: ByteLen,
    /// Copies of each byte; must be the pool's.
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    pub(crate) replicas: u32,
    /// Bytes that go to one chunk before the next one's turn.
    #[arg(long, value_parser = size, requires = "stripe_count")]
    pub(crate) stripe_unit: Option<ByteLen>,
    /// Chunks that take turns.
    #[arg(long, requires = "stripe_unit")]
    pub(crate) stripe_count: Option<u32>,
    /// Pool to place it in; without it one that pools' weights choose, or else "default".
    #[arg(long, default_value = "", hide_default_value = true)]
    pub(crate) pool: String,
    /// Who it belongs to: a quota may bound what one owner has.
    #[arg(long, default_value = "")]
    pub(crate) owner: String,
    /// A label to tell it by; may be repeated.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
}

#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("change").required(true).multiple(true))]
pub(crate) struct VolumeSetArgs {
    /// Its name.
    pub(crate) name: String,
    /// Who it belongs to.
    #[arg(long, group = "change")]
    pub(crate) owner: Option<String>,
    /// A label to set, or to set anew; may be repeated.
    #[arg(long = "label", group = "change", value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// A label to take off; may be repeated.
    #[arg(long, group = "change", value_name = "KEY")]
    pub(crate) unlabel: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct VolumeLsArgs {
    /// Only those whose names begin so: `team/` for all in a directory.
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// Only those of that owner.
    #[arg(long)]
    pub(crate) owner: Option<String>,
    /// Only those with that label; may be repeated: with all of them.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum DirCommand {
    /// Create a directory. Volumes are made in it by their path: team/db1.
    Create {
        /// Its path.
        path: String,
        /// Make those above it as well; it may exist.
        #[arg(short = 'p', long)]
        parents: bool,
    },
    /// List what is in a directory.
    Ls {
        /// Its path; without one, what is at the top.
        #[arg(default_value = "", hide_default_value = true)]
        path: String,
        /// All that is below it, too.
        #[arg(short = 'r', long)]
        recursive: bool,
    },
    /// Remove a directory that is empty.
    Rm {
        /// Its path.
        path: String,
    },
    /// Call a directory, with all that is in it, something else. Who uses volumes in it goes on.
    Rename {
        /// Its path.
        from: String,
        /// Its new path.
        to: String,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum QuotaCommand {
    /// List quotas, and how much of each is taken.
    Ls,
    /// Bound what an owner's volumes, or those in a directory, may have in all. What there is already is let be.
    #[command(group = clap::ArgGroup::new("bound").required(true).multiple(true))]
    Set {
        #[command(flatten)]
        of: QuotaOfArgs,
        /// Bytes, as their users see them, such as 10TiB; or none: any number.
        #[arg(long, group = "bound", value_name = "SIZE|none", value_parser = bytes)]
        bytes: Option<Bound>,
        /// How many volumes; or none: any number.
        #[arg(long, group = "bound", value_name = "N|none", value_parser = volumes)]
        volumes: Option<Bound>,
    },
    /// Lift a quota.
    Clear {
        #[command(flatten)]
        of: QuotaOfArgs,
    },
}

#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct QuotaOfArgs {
    /// Of all volumes of that owner.
    #[arg(long)]
    pub(crate) owner: Option<String>,
    /// Of all volumes in that directory, at any depth.
    #[arg(long, value_name = "PATH")]
    pub(crate) dir: Option<String>,
}

/// How much there may be; none: any.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Bound(pub(crate) Option<u64>);

fn bytes(text: &str) -> Result<Bound, String> {
    quota(text).map(|bytes| Bound((bytes > 0).then_some(bytes)))
}

fn volumes(text: &str) -> Result<Bound, String> {
    match text {
        "none" => Ok(Bound(None)),
        text => match text.parse() {
            Ok(number) => Ok(Bound(Some(number))),
            Err(_) => Err(format!("{text:?}: a number, or none")),
        },
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=');
    let (key, value) = pair.ok_or_else(|| format!("{text:?}: write KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_and_labels_are_read_as_they_are_written() {
        assert_eq!(bytes("1KiB"), Ok(Bound(Some(1024))));
        assert_eq!(
            (bytes("none"), volumes("none")),
            (Ok(Bound(None)), Ok(Bound(None)))
        );
        assert_eq!(volumes("0"), Ok(Bound(Some(0))));
        assert!(bytes("0").is_err() && volumes("few").is_err());
        let pair = |key: &str, value: &str| Ok((key.to_owned(), value.to_owned()));
        assert_eq!(label("tier=gold"), pair("tier", "gold"));
        assert_eq!(label("a=b=c"), pair("a", "b=c"));
        assert_eq!(label("a="), pair("a", ""));
        assert!(label("tier").is_err());
    }
}
