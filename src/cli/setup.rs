//! The flags that every command takes: where configuration and job definitions are, and reading them.

use super::error::CliError;
use crate::catalog::{self, Catalog};
use crate::config::{self, Config, Sources};
use crate::handlers::BUILT_IN;
use std::path::{Path, PathBuf};

/// Where a packaged installation keeps its configuration.
const SYSTEM_CONFIG: &str = "/etc/tidegate";
/// The folder of job definitions, beside the configuration or in the working directory.
const JOBS_FOLDER: &str = "jobs";

/// Flags that every command takes.
#[derive(Debug, Clone, clap::Args)]
pub struct Global {
    /// Configuration: a file, or a folder of *.toml files [default: /etc/tidegate if there is one]
    #[arg(long, global = true, env = "TIDEGATE_CONFIG", value_name = "PATH")]
    config: Option<PathBuf>,
    /// Job definitions: a folder of *.toml files [default: `jobs` beside the configuration, or here]
    #[arg(long, global = true, env = "TIDEGATE_JOBS", value_name = "DIR")]
    jobs: Option<PathBuf>,
    /// Answer with one JSON object
    #[arg(long, global = true)]
    pub json: bool,
}

impl Global {
    /// The configuration that was named, or that of the installation; none: defaults and environment alone.
    #[must_use]
    pub fn config_path(&self) -> Option<PathBuf> {
        let system = || Some(PathBuf::from(SYSTEM_CONFIG)).filter(|p| p.exists());
        self.config.clone().or_else(system)
    }

    /// The folder of job definitions that was named or found.
    #[must_use]
    pub fn jobs_dir(&self) -> Option<PathBuf> {
        if self.jobs.is_some() {
            return self.jobs.clone();
        }
        let config = self.config_path();
        let beside = config.as_deref().and_then(|path| {
            let folder = if path.is_dir() {
                Some(path)
            } else {
                path.parent()
            };
            folder.map(|f| f.join(JOBS_FOLDER))
        });
        let here = Path::new(JOBS_FOLDER).to_owned();
        beside.into_iter().chain([here]).find(|dir| dir.is_dir())
    }

    /// Reads the configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load_config(&self) -> Result<Config, CliError> {
        let path = self.config_path();
        Ok(config::load(&Sources { path })?)
    }

    /// Reads the job definitions; none if there is no folder of them.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn load_catalog(&self) -> Result<Option<Catalog>, CliError> {
        let handlers: Vec<&str> = BUILT_IN.iter().map(|h| h.name).collect();
        let load = |dir: PathBuf| catalog::load(&dir, &handlers);
        Ok(self.jobs_dir().map(load).transpose()?)
    }
}
