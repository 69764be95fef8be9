//! Metrics, case by case.

use super::*;

fn usage(input: u64, cached: u64, output: u64) -> Usage {
    Usage {
        input_tokens: input,
        cache_creation_input_tokens: 0,
        cache_read_input_tokens: cached,
        output_tokens: output,
    }
}

#[test]
fn a_request_is_counted_where_it_is_and_summed_where_it_belongs() {
    let metrics = Metrics::new();
    let one = Caller::Lease(1);
    let mut running = metrics.arrive(one);
    assert_eq!((metrics.queued(), metrics.active()), (1, 0));
    running.start();
    assert_eq!((metrics.queued(), metrics.active()), (0, 1));
    running.start();
    assert_eq!((metrics.queued(), metrics.active()), (0, 1));
    running.token();
    running.usage(usage(10, 90, 5));
    running.end(Ended::Answered);
    running.end(Ended::Stopped);
    drop(running);
    assert_eq!((metrics.queued(), metrics.active()), (0, 0));

    let summary = metrics.summary(one);
    assert_eq!(
        (summary.turns, summary.unanswered, summary.input_tokens),
        (1, 0, 10)
    );
    assert_eq!((summary.cached_tokens, summary.output_tokens), (90, 5));
    assert!(summary.first_token_ms.is_some());
    assert_eq!(metrics.summary(Caller::Main), Summary::default());
    let recent = metrics.recent();
    assert_eq!(recent.len(), 1);
    assert_eq!(recent[0].ended, Ended::Answered);

    metrics.forget(one);
    assert_eq!(metrics.summary(one), Summary::default());
    assert_eq!(metrics.total().turns, 1);
}

#[tokio::test]
async fn who_waits_for_work_is_told_when_the_engine_gets_it() {
    let metrics = Metrics::new();
    let waiting = tokio::spawn({
        let metrics = metrics.clone();
        async move { metrics.until_active().await }
    });
    tokio::task::yield_now().await;
    let mut running = metrics.arrive(Caller::Main);
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    running.start();
    waiting.await.expect("told");
    // And at once while it works.
    metrics.until_active().await;
}

#[test]
fn each_caller_sees_how_its_own_requests_stand() {
    let metrics = Metrics::new();
    let [one, two] = [Caller::Lease(1), Caller::Lease(2)];
    assert_eq!(metrics.standing(None), Standing::Idle);
    let mut first = metrics.arrive(one);
    first.start();
    let second = metrics.arrive(two);
    let third = metrics.arrive(two);
    let is_reading = |standing| {
        matches!(
            standing,
            Standing::AtWork {
                answering: None,
                ..
            }
        )
    };
    assert!(is_reading(metrics.standing(Some(one))));
    assert!(is_reading(metrics.standing(None)));
    let ahead = |caller| match metrics.standing(Some(caller)) {
        Standing::Waiting { ahead, .. } => Some(ahead),
        _ => None,
    };
    assert_eq!(ahead(two), Some(1));
    first.token();
    let standing = metrics.standing(Some(one));
    assert!(matches!(
        standing,
        Standing::AtWork {
            answering: Some(_),
            ..
        }
    ));
    drop((first, second));
    assert_eq!(metrics.standing(Some(one)), Standing::Idle);
    assert_eq!(ahead(two), Some(0));
    drop(third);
    assert_eq!(metrics.standing(None), Standing::Idle);
}

#[test]
fn a_client_that_went_away_is_no_turn() {
    let metrics = Metrics::new();
    drop(metrics.arrive(Caller::Main));
    let mut running = metrics.arrive(Caller::Main);
    running.start();
    drop(running);
    let summary = metrics.summary(Caller::Main);
    assert_eq!((summary.turns, summary.unanswered), (0, 2));
    assert_eq!(summary.first_token_ms, None);
    assert!(
        metrics
            .recent()
            .iter()
            .all(|figure| figure.ended == Ended::Cancelled)
    );
}

#[test]
fn the_median_is_of_the_times_that_there_are() {
    let mut total = Total::default();
    assert_eq!(total.summary().first_token_ms, None);
    total.first_tokens = [900, 10, 20].into();
    assert_eq!(total.summary().first_token_ms, Some(20));
}
