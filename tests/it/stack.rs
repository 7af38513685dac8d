//! Private servers: they start, stop, freeze and die as asked, and never outlive their owner.

use std::{
    env, fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use redis::Connection;
use rustix::process::{Pid, getpgid};
use sqlx::{Connection as _, PgConnection};
use tidegate::stack::{
    Listen, PostgresOptions, PrivatePostgres, PrivateRedis, RedisOptions, Scratch, StackError,
};

use crate::support::{
    DEADLINE, fresh_database, fresh_prefix, is_running, process_state, redis_url, wait_until,
};

/// Long enough for a healthy server to answer many times over.
const NO_ANSWER: Duration = Duration::from_millis(300);

fn redis_in(scratch: &Scratch) -> RedisOptions {
    RedisOptions::new(scratch.path().join("redis"))
}

fn postgres_in(scratch: &Scratch) -> PostgresOptions {
    PostgresOptions::new(scratch.path().join("postgres"))
}

fn connect(url: &str) -> redis::RedisResult<Connection> {
    redis::Client::open(url)?.get_connection()
}

fn command<T: redis::FromRedisValue>(
    connection: &mut Connection,
    words: &str,
) -> redis::RedisResult<T> {
    let mut words = words.split(' ');
    let mut command = redis::cmd(words.next().unwrap());
    words.for_each(|word| {
        command.arg(word);
    });
    command.query(connection)
}

async fn one(connection: &mut PgConnection, query: &'static str) -> String {
    sqlx::query_scalar(query)
        .fetch_one(connection)
        .await
        .unwrap()
}

#[test]
fn redis_honours_its_options() {
    let scratch = Scratch::new().unwrap();
    let mut options = redis_in(&scratch);
    options.append_only = true;
    options.max_memory = Some(64 << 20);
    options.password = Some("p@ss \"word\"".to_owned());
    options.extra_args = ["--hz", "50"].map(str::to_owned).into();
    let redis = PrivateRedis::start(options).unwrap();

    let mut connection = connect(&redis.url()).unwrap();
    for (name, value) in [
        ("appendonly", "yes"),
        ("maxmemory", "67108864"),
        ("maxmemory-policy", "noeviction"),
        ("hz", "50"),
        ("save", ""),
        ("bind", "127.0.0.1"),
    ] {
        let (_, found): (String, String) =
            command(&mut connection, &format!("CONFIG GET {name}")).unwrap();
        assert_eq!(found, value, "{name}");
    }
    let stranger = connect(&format!("redis://127.0.0.1:{}", redis.port()))
        .and_then(|mut connection| command::<String>(&mut connection, "PING"))
        .unwrap_err();
    assert!(
        stranger.to_string().to_lowercase().contains("auth"),
        "{stranger}"
    );
    let arguments = fs::read_to_string(format!("/proc/{}/cmdline", redis.pid().unwrap())).unwrap();
    assert!(
        !arguments.contains("word"),
        "the password is visible to everyone: {arguments}"
    );
}

#[test]
fn redis_listens_on_a_socket_alone() {
    let scratch = Scratch::new().unwrap();
    let mut options = redis_in(&scratch);
    options.listen = Listen::Unix;
    options.password = Some("a&b=c%".to_owned());
    let mut redis = PrivateRedis::start(options).unwrap();
    assert_eq!(redis.port(), 0);
    for _ in 0..2 {
        let pong: String = command(&mut connect(&redis.url()).unwrap(), "PING").unwrap();
        assert_eq!(pong, "PONG");
        redis.restart().unwrap();
    }
}

#[test]
fn redis_comes_back_on_its_port_with_its_data() {
    let scratch = Scratch::new().unwrap();
    let mut options = redis_in(&scratch);
    options.append_only = true;
    let mut redis = PrivateRedis::start(options).unwrap();
    let (url, pid) = (redis.url(), redis.pid().unwrap());
    let () = command(&mut connect(&url).unwrap(), "SET key kept").unwrap();

    redis.stop().unwrap();
    assert_eq!(redis.pid(), None);
    assert!(!is_running(pid));
    assert!(connect(&url).is_err());

    redis.restart().unwrap();
    assert_eq!(redis.url(), url);
    let value: String = command(&mut connect(&url).unwrap(), "GET key").unwrap();
    assert_eq!(value, "kept");

    let pid = redis.pid().unwrap();
    redis.kill9().unwrap();
    assert!(!is_running(pid));
    redis.restart().unwrap();
    assert_eq!(redis.url(), url);
    assert_ne!(redis.pid(), Some(pid));
    let _: String = command(&mut connect(&url).unwrap(), "PING").unwrap();
}

#[test]
fn a_frozen_redis_answers_nothing_and_then_goes_on() {
    let scratch = Scratch::new().unwrap();
    let mut redis = PrivateRedis::start(redis_in(&scratch)).unwrap();
    let mut connection = connect(&redis.url()).unwrap();
    connection.set_read_timeout(Some(NO_ANSWER)).unwrap();

    redis.pause().unwrap();
    let silence = command::<String>(&mut connection, "PING").unwrap_err();
    assert!(silence.is_timeout(), "{silence}");

    redis.resume().unwrap();
    let pong: String = command(&mut connect(&redis.url()).unwrap(), "PING").unwrap();
    assert_eq!(pong, "PONG");

    redis.pause().unwrap();
    let pid = redis.pid().unwrap();
    redis.stop().unwrap();
    assert!(!is_running(pid), "a frozen server can be stopped");
    assert!(matches!(redis.pause(), Err(StackError::Stopped { .. })));
}

#[test]
fn servers_have_a_process_group_of_their_own_and_outlive_the_thread_that_started_them() {
    let scratch = Scratch::new().unwrap();
    let options = redis_in(&scratch);
    let redis = thread::spawn(|| PrivateRedis::start(options).unwrap())
        .join()
        .unwrap();
    let _: String = command(&mut connect(&redis.url()).unwrap(), "PING").unwrap();
    let pid = Pid::from_raw(redis.pid().unwrap().try_into().unwrap());
    assert_eq!(getpgid(pid).unwrap(), pid.unwrap());
    drop(redis);
    assert!(!is_running(
        pid.unwrap().as_raw_nonzero().get().try_into().unwrap()
    ));
}

#[tokio::test]
async fn postgres_serves_databases_as_an_unprivileged_user() {
    let scratch = Scratch::new().unwrap();
    let mut options = postgres_in(&scratch);
    options
        .settings
        .push(("work_mem".to_owned(), "5MB".to_owned()));
    let postgres = PrivatePostgres::start(options).unwrap();
    let owner = fs::metadata(format!("/proc/{}", postgres.pid().unwrap()))
        .unwrap()
        .uid();
    assert_ne!(owner, 0);

    postgres.create_database("one").unwrap();
    let again = postgres.create_database("one").unwrap_err();
    assert!(again.to_string().contains("already exists"), "{again}");

    let mut connection = PgConnection::connect(&postgres.url("one")).await.unwrap();
    assert_eq!(
        one(&mut connection, "SELECT current_database()::text").await,
        "one"
    );
    assert_eq!(one(&mut connection, "SHOW fsync").await, "off");
    assert_eq!(one(&mut connection, "SHOW work_mem").await, "5MB");
    assert_eq!(one(&mut connection, "SHOW server_encoding").await, "UTF8");
    assert_eq!(
        one(&mut connection, "SHOW listen_addresses").await,
        "127.0.0.1"
    );

    let socket = format!(
        "postgres://postgres@localhost/one?host={}&port={}",
        postgres.dir().display(),
        postgres.port()
    );
    let mut connection = PgConnection::connect(&socket).await.unwrap();
    assert_eq!(
        one(&mut connection, "SELECT current_user::text").await,
        "postgres"
    );
}

#[tokio::test]
async fn postgres_asks_for_its_password_and_syncs_when_told_to() {
    let scratch = Scratch::new().unwrap();
    let mut options = postgres_in(&scratch);
    options.password = Some("p@ss/word".to_owned());
    options.durable = true;
    let postgres = PrivatePostgres::start(options).unwrap();
    postgres.create_database("locked").unwrap();

    let mut connection = PgConnection::connect(&postgres.url("locked"))
        .await
        .unwrap();
    assert_eq!(one(&mut connection, "SHOW fsync").await, "on");
    let stranger = format!(
        "postgres://postgres:wrong@127.0.0.1:{}/locked",
        postgres.port()
    );
    assert!(PgConnection::connect(&stranger).await.is_err());
    assert!(!postgres.dir().join("password").exists());
}

#[tokio::test]
async fn postgres_comes_back_on_its_port_with_its_data_after_a_kill() {
    let scratch = Scratch::new().unwrap();
    let mut postgres = PrivatePostgres::start(postgres_in(&scratch)).unwrap();
    let url = postgres.url("postgres");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::query("CREATE TABLE kept AS SELECT 1")
        .execute(&mut connection)
        .await
        .unwrap();

    let family = family_of(postgres.pid().unwrap());
    assert!(
        family.len() > 3,
        "the server, its helpers and our session: {family:?}"
    );
    postgres.kill9().unwrap();
    assert_eq!(postgres.pid(), None);
    assert!(!family.iter().any(|pid| is_running(*pid)));

    postgres.restart().unwrap();
    assert_eq!(postgres.url("postgres"), url);
    let mut connection = PgConnection::connect(&url).await.unwrap();
    assert_eq!(
        one(&mut connection, "SELECT count(*)::text FROM kept").await,
        "1"
    );

    drop(postgres);
    // A later run finds the data as it was left.
    let postgres = PrivatePostgres::start(postgres_in(&scratch)).unwrap();
    let mut connection = PgConnection::connect(&postgres.url("postgres"))
        .await
        .unwrap();
    assert_eq!(
        one(&mut connection, "SELECT count(*)::text FROM kept").await,
        "1"
    );
}

#[tokio::test]
async fn a_frozen_postgres_answers_nothing_and_then_goes_on() {
    let scratch = Scratch::new().unwrap();
    let mut postgres = PrivatePostgres::start(postgres_in(&scratch)).unwrap();
    let mut connection = PgConnection::connect(&postgres.url("postgres"))
        .await
        .unwrap();

    postgres.pause().unwrap();
    for pid in family_of(postgres.pid().unwrap()) {
        assert_eq!(
            process_state(pid).unwrap().0,
            'T',
            "process {pid} still runs"
        );
    }
    let mut answer = Box::pin(one(&mut connection, "SELECT 'thawed'"));
    assert!(tokio::time::timeout(NO_ANSWER, &mut answer).await.is_err());

    postgres.resume().unwrap();
    assert_eq!(
        tokio::time::timeout(DEADLINE, answer).await.unwrap(),
        "thawed"
    );
}

#[test]
fn what_cannot_start_says_why() {
    let scratch = Scratch::new().unwrap();
    let mut options = redis_in(&scratch);
    options.extra_args = ["--no-such-option", "1"].map(str::to_owned).into();
    let error = PrivateRedis::start(options).err().unwrap().to_string();
    assert!(error.contains("no-such-option"), "{error}");

    let taken = scratch.path().join("redis");
    let error = PrivatePostgres::start(PostgresOptions::new(&taken))
        .err()
        .unwrap();
    assert!(
        matches!(&error, StackError::FolderTaken(dir) if *dir == taken),
        "{error}"
    );
}

#[test]
fn as_root_a_closed_parent_folder_is_named() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root runs Postgres as somebody else");
        return;
    }
    // Unlike `Scratch`, this folder keeps all other users out.
    let closed = tempfile::tempdir().unwrap();
    fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();
    let dir = closed.path().join("postgres");
    let error = PrivatePostgres::start(PostgresOptions::new(&dir))
        .err()
        .unwrap();
    assert!(
        matches!(&error, StackError::Unreachable { path, .. } if *path == dir),
        "{error}"
    );
}

#[tokio::test]
async fn tests_share_servers_but_no_names() {
    assert_eq!(redis_url(), redis_url());
    assert_ne!(fresh_prefix(), fresh_prefix());
    let (first, second) = (fresh_database(), fresh_database());
    assert_ne!(first, second);
    let mut connection = PgConnection::connect(&first).await.unwrap();
    let own: String = one(&mut connection, "SELECT current_database()::text").await;
    assert!(first.ends_with(&own));
    let _: String = command(&mut connect(&redis_url()).unwrap(), "PING").unwrap();
}

#[tokio::test]
async fn a_killed_owner_leaves_nothing_running() {
    assert_nothing_outlives("running").await;
}

#[tokio::test]
async fn a_killed_owner_leaves_nothing_even_when_its_servers_are_frozen() {
    assert_nothing_outlives("frozen").await;
}

/// Kills a process that owns servers in the given state, and waits until they and their folder are gone.
async fn assert_nothing_outlives(state: &str) {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let mut owner = start_owner(state, &report, None);
    wait_until("the owner reports its servers", 4 * DEADLINE, || async {
        report.exists()
    })
    .await;
    let text = fs::read_to_string(&report).unwrap();
    let (scratch, pids) = text.split_once('\n').unwrap();
    let pids: Vec<u32> = pids.lines().map(|pid| pid.parse().unwrap()).collect();
    let all: Vec<u32> = pids.iter().flat_map(|pid| family_of(*pid)).collect();
    assert!(all.len() > 4, "Redis, Postgres and its helpers: {all:?}");
    assert!(all.iter().all(|pid| is_running(*pid)));

    owner.kill().unwrap();
    owner.wait().unwrap();
    wait_until("all servers are gone", DEADLINE, || async {
        !all.iter().any(|pid| is_running(*pid))
    })
    .await;
    wait_until("their folder is gone", DEADLINE, || async {
        !Path::new(scratch).exists()
    })
    .await;
}

#[test]
fn a_missing_program_is_named_with_the_package_that_brings_it() {
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report");
    let status = start_owner("missing", &report, Some("/nonexistent"))
        .wait()
        .unwrap();
    assert!(status.success());
    let text = fs::read_to_string(&report).unwrap();
    assert!(
        text.contains("redis-server was not found") && text.contains("apt: redis-server"),
        "{text}"
    );
}

/// Runs [`owner`] in a process of its own.
fn start_owner(state: &str, report: &Path, path: Option<&str>) -> Child {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", "stack::owner", "--ignored"])
        .env("STACK_OWNER_STATE", state)
        .env("STACK_OWNER_REPORT", report)
        .stdout(Stdio::null());
    if let Some(path) = path {
        command.env("PATH", path);
    }
    command.spawn().unwrap()
}

/// Owns servers until it is killed; reports its folder and their process ids, or why they did not start.
#[test]
#[ignore = "the body of a process that other tests start and kill"]
fn owner() {
    let state = env::var("STACK_OWNER_STATE").unwrap();
    let report = env::var("STACK_OWNER_REPORT").unwrap();
    if state == "missing" {
        return tell(&report, &program_missing()).unwrap();
    }
    let scratch = Scratch::new().unwrap();
    let mut redis = PrivateRedis::start(redis_in(&scratch)).unwrap();
    let mut postgres = PrivatePostgres::start(postgres_in(&scratch)).unwrap();
    if state == "frozen" {
        redis.pause().unwrap();
        postgres.pause().unwrap();
    }
    let (redis_pid, postgres_pid) = (redis.pid().unwrap(), postgres.pid().unwrap());
    tell(
        &report,
        &format!(
            "{}\n{redis_pid}\n{postgres_pid}\n",
            scratch.path().display()
        ),
    )
    .unwrap();
    loop {
        thread::park();
    }
}

/// What a start says when there is nothing on `PATH`.
fn program_missing() -> String {
    let folder = tempfile::tempdir().unwrap();
    PrivateRedis::start(RedisOptions::new(folder.path()))
        .err()
        .unwrap()
        .to_string()
}

/// Writes a file that is complete as soon as it exists.
fn tell(file: &str, text: &str) -> io::Result<()> {
    let draft = format!("{file}.draft");
    fs::write(&draft, text)?;
    fs::rename(draft, file)
}

/// A process and its children.
fn family_of(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let children = pids.filter(|pid| process_state(*pid).is_some_and(|(_, its)| its == parent));
    children.chain([parent]).collect()
}
