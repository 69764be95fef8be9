//! A download by itself: `cclocal pull`. The engine's own downloader fetches the model, so it lies where a session looks for it; nothing is loaded.

use std::time::{Duration, Instant};

use crate::app::App;
use crate::catalog::Source;
use crate::engine::env;
use crate::engine::executable::Executable;
use crate::engine::lifecycle::End;
use crate::engine::server::{self, Launch, Server};
use crate::error::{Error, Exit, Result};
use crate::hub::download_progress::Download;
use crate::hub::{self, Cached, api};
use crate::session::acquire::refuse_offline;
use crate::session::launch_plan::Measured;
use crate::session::request::{self, Request};
use crate::session::wait_ready;
use crate::supervisor::startup;
use crate::sys::process::Ended;
use crate::sys::process::signals::{self, Signals};
use crate::ui;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_millis(250);

/// Downloads the model that is asked for. Returns the exit status. Errors: the hub or the disk is in the way, or the model cannot be served.
pub async fn run(
    app: &App,
    mut request: Request,
    engine: &Executable,
    signals: &mut Signals,
) -> Result<u8> {
    let App {
        environment: host,
        paths,
        ui,
        ..
    } = app;
    let name = request.model.name.clone();
    let Source::Hub(id) = request.model.source.clone() else {
        return Err(Error::usage(format!(
            "{name} is a folder on this disk: there is nothing to download"
        ))
        .hint(
            "cclocal pull takes a model of the catalogue, such as gemma, or a hub id, org/name",
        ));
    };
    if let Cached::Complete { bytes, .. } = hub::cached(&paths.hub, &id) {
        ui.done(&format!("{name} is on this disk: {}", ui::bytes(bytes)));
        return Ok(0);
    }
    refuse_offline(app, &request)?;
    let told = {
        let _progress = ui.progress(&format!("asking the hub about {name}"));
        api::model_info(host, &id).await
    };
    let size = told.size;
    // One attempt shows that a hub that does not answer is unreachable.
    let attempts = if told.files.is_some() { "3" } else { "1" };
    request::learn(paths, &mut request, |_| told)?;
    let measured = Measured::of(app, request, None, |_| size)?;
    measured.check_disk(app)?;

    let folder = server::empty_folder(app)?;
    let mut environment = env::inherited(host);
    environment.extend(
        env::fixed()
            .into_iter()
            .map(|(name, value)| (name.into(), value.into())),
    );
    // With the files of multimodal models; other models have no such files.
    let argv = ["download", &id, "--mllm", "--retries", attempts].map(str::to_owned);
    let mut server = Server::start(Launch {
        executable: engine,
        argv: &argv,
        env: environment,
        key: None,
        folder: &folder,
        log: paths.state.join("pull.log"),
        // It serves nothing.
        socket: paths.state.join("run/pull.sock"),
        served_name: name.clone(),
    })?;
    let limit = startup::stall_limit(host)?;
    let there = hub::cached(&paths.hub, &id).bytes();
    let mut download = Download::new(Instant::now(), there, measured.download);
    let mut progress = ui.progress(&format!("downloading {name}"));
    let end = loop {
        tokio::select! {
            end = server.ended() => break end,
            signal = signals.next() => {
                drop(server);
                drop(progress);
                ui.say(&format!(
                    "Interrupted: {} of {name} are kept, and the next download goes on from there.",
                    ui::bytes(hub::cached(&paths.hub, &id).bytes())
                ));
                return Ok(signals::status(signal));
            }
            () = tokio::time::sleep(LOOK) => {
                let now = Instant::now();
                download.update(now, hub::cached(&paths.hub, &id).bytes());
                if download.stalled_for(now) >= limit {
                    return Err(startup::stalled(limit, &download.progress()));
                }
                progress.show(&wait_ready::downloading(&name, &download.progress(), ui.columns()));
            }
        }
    };
    let took = progress.elapsed();
    drop(progress);
    match hub::cached(&paths.hub, &id) {
        Cached::Complete { bytes, .. } => {
            let took = ui::seconds(took);
            ui.done(&format!(
                "{name} downloaded in {took}: {}",
                ui::bytes(bytes)
            ));
            Ok(0)
        }
        _ if end == End::FailedToStart(Ended::Code(0)) => Err(Error::new(
            Exit::Download,
            format!("{name} is not complete on this disk"),
        )
        .cause("the download ended, and files that serving needs are missing")
        .hint("run it again; `cclocal doctor` looks at the cache")),
        _ => {
            let mut error = server.explain(end);
            if error.exit != Exit::Download {
                error.message = format!("{name} could not be downloaded");
            }
            Err(error)
        }
    }
}
