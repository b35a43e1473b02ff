//! A stream in both directions: messages under way, and the answers that belong to them.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tonic::{Code, Response, Status, Streaming};

use crate::{Error, Kind, Result};

/// Messages that may wait to be sent; then whoever says more waits.
pub(crate) const OUTBOX: usize = 8;

/// How long the server may take to end a stream that is closed; it takes milliseconds.
const HANG_UP: Duration = Duration::from_secs(1);

/// What came from the server, for those who wait.
pub(crate) struct Incoming<A> {
    /// Of the message that it answers.
    pub number: u64,
    /// Set where it answers earlier messages of this group, too.
    pub group: Option<String>,
    pub answer: Result<A>,
}

/// One stream. It is closed when the last of those who speak over it is dropped.
pub(crate) struct Exchange<Q, A> {
    /// None once it is closed.
    outbox: Mutex<Option<mpsc::Sender<Q>>>,
    waiting: Arc<Mutex<Waiting<A>>>,
    reader: AbortHandle,
    /// Closed when nobody reads any more.
    over: watch::Receiver<()>,
}

/// What a stream ended by, and whether anything was answered before, makes what those who still wait
/// are told.
type Cut = fn(Error, bool) -> Error;

struct Waiting<A> {
    /// The number of the last message.
    last: u64,
    places: BTreeMap<u64, Place<A>>,
    /// Why there will be no more answers.
    cut: Option<Error>,
}

struct Place<A> {
    group: Option<String>,
    answer: oneshot::Sender<Result<A>>,
}

/// Gives a place up when whoever asked waits no longer.
struct Asker<'a, A> {
    waiting: &'a Mutex<Waiting<A>>,
    number: u64,
}

impl<A> Drop for Asker<'_, A> {
    fn drop(&mut self) {
        lock(self.waiting).places.remove(&self.number);
    }
}

/// Waits until a stream is open.
pub(crate) async fn opened<R>(
    most: Duration,
    opening: impl Future<Output = std::result::Result<Response<Streaming<R>>, Status>>,
) -> Result<Streaming<R>> {
    let response = timeout(most, opening).await.map_err(|_| late())??;
    Ok(response.into_inner())
}

impl<Q, A: Clone + Send + 'static> Exchange<Q, A> {
    /// Reads answers until there are no more. `sort` says whose each of them is, or keeps it.
    pub fn new<R: Send + 'static>(
        outbox: mpsc::Sender<Q>,
        answers: Streaming<R>,
        sort: impl FnMut(R) -> Option<Incoming<A>> + Send + 'static,
        cut: Cut,
    ) -> Self {
        let waiting = Waiting { last: 0, places: BTreeMap::new(), cut: None };
        let waiting = Arc::new(Mutex::new(waiting));
        let (reading, over) = watch::channel(());
        let shared = waiting.clone();
        let reader = tokio::spawn(async move {
            let _reading = reading;
            read(answers, sort, cut, shared).await;
        });
        Self { outbox: Mutex::new(Some(outbox)), waiting, reader: reader.abort_handle(), over }
    }

    /// Sends a message, made with its number, and waits for its answer for so long at most.
    pub async fn ask(
        &self,
        group: Option<String>,
        most: Duration,
        message: impl FnOnce(u64) -> Q,
    ) -> Result<A> {
        timeout(most, self.answer(group, message)).await.unwrap_or_else(|_| Err(late()))
    }

    /// Ends the stream, and returns when the server has let go of it. Whoever still waits is told.
    pub async fn close(&self) {
        lock(&self.outbox).take();
        lock(&self.waiting).end(&closed());
        let _ = timeout(HANG_UP, self.over.clone().changed()).await;
        self.reader.abort(); // where the server did not
    }

    async fn answer(&self, group: Option<String>, message: impl FnOnce(u64) -> Q) -> Result<A> {
        let outbox = lock(&self.outbox).clone().ok_or_else(closed)?;
        let room = outbox.reserve().await;
        let (_asker, coming) = {
            let mut waiting = lock(&self.waiting);
            if let Some(cut) = &waiting.cut {
                return Err(cut.clone());
            }
            let (answer, coming) = oneshot::channel();
            waiting.last += 1;
            let number = waiting.last;
            waiting.places.insert(number, Place { group, answer });
            // Without room the stream is over, and whoever reads is about to learn why.
            if let Ok(room) = room {
                room.send(message(number)); // under the lock: numbers go out in their order
            }
            (Asker { waiting: &self.waiting, number }, coming)
        };
        coming.await.unwrap_or_else(|_| Err(ended()))
    }
}

async fn read<R, A: Clone>(
    mut answers: Streaming<R>,
    mut sort: impl FnMut(R) -> Option<Incoming<A>>,
    cut: Cut,
    waiting: Arc<Mutex<Waiting<A>>>,
) {
    let mut has_answered = false;
    let end = loop {
        match answers.message().await {
            Ok(Some(message)) => {
                if let Some(incoming) = sort(message) {
                    has_answered = true;
                    lock(&waiting).tell(&incoming);
                }
            }
            Ok(None) => break ended(),
            Err(status) => break status.into(),
        }
    };
    lock(&waiting).end(&cut(end, has_answered));
}

impl<A: Clone> Waiting<A> {
    fn tell(&mut self, incoming: &Incoming<A>) {
        let told = |number: &u64, place: &mut Place<A>| {
            let grouped = incoming.group.is_some() && place.group == incoming.group;
            *number == incoming.number || (grouped && *number < incoming.number)
        };
        for (_, place) in self.places.extract_if(..=incoming.number, told) {
            let _ = place.answer.send(incoming.answer.clone()); // else whoever asked has left
        }
    }

    fn end(&mut self, cut: &Error) {
        self.cut.get_or_insert_with(|| cut.clone()); // the first reason stands
        for place in std::mem::take(&mut self.places).into_values() {
            let _ = place.answer.send(Err(cut.clone()));
        }
    }
}

pub(crate) fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("nothing panics while it holds this")
}

fn ended() -> Error {
    Error::local(Kind::Unavailable, Code::Unavailable, "the stream has ended")
}

fn closed() -> Error {
    Error::local(Kind::Unavailable, Code::Unavailable, "the stream is closed; open another")
}

fn late() -> Error {
    let message = "there was no answer in time; what was asked may have been done";
    Error::local(Kind::DeadlineExceeded, Code::DeadlineExceeded, message)
}

/// What is told to whoever asked for something that only later versions know.
pub(crate) fn unknown() -> Error {
    let message = "the server answered something that this version of the client does not know";
    Error::local(Kind::ServerFault, Code::Internal, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(groups: &[Option<&str>]) -> (Waiting<u8>, Vec<oneshot::Receiver<Result<u8>>>) {
        let mut waiting = Waiting { last: 0, places: BTreeMap::new(), cut: None };
        let mut coming = Vec::new();
        for (number, group) in (1..).zip(groups) {
            let (answer, receiver) = oneshot::channel();
            waiting.places.insert(number, Place { group: group.map(String::from), answer });
            coming.push(receiver);
        }
        (waiting, coming)
    }

    #[test]
    fn an_answer_goes_to_the_one_who_asked() {
        let (mut waiting, mut coming) = waiting(&[None, None]);
        waiting.tell(&Incoming { number: 2, group: None, answer: Ok(7) });
        assert!(coming[0].try_recv().is_err());
        assert_eq!(coming[1].try_recv().unwrap().unwrap(), 7);
    }

    #[test]
    fn the_answer_to_a_batch_is_that_of_earlier_ones_of_its_lease() {
        let (mut waiting, mut coming) =
            waiting(&[Some("a"), Some("b"), None, Some("a"), Some("a")]);
        let group = Some("a".to_string());
        waiting.tell(&Incoming { number: 4, group, answer: Ok(7) });
        let told: Vec<_> = coming.iter_mut().map(|each| each.try_recv().is_ok()).collect();
        assert_eq!(told, [true, false, false, true, false]);
    }

    /// One that somebody else reads.
    fn exchange(outbox: mpsc::Sender<u64>, waiting: Arc<Mutex<Waiting<u8>>>) -> Exchange<u64, u8> {
        let (_, over) = watch::channel(());
        let reader = tokio::spawn(async {}).abort_handle();
        Exchange { outbox: Mutex::new(Some(outbox)), waiting, reader, over }
    }

    #[tokio::test]
    async fn a_stream_that_is_closed_says_so_to_whoever_asks() {
        let (outbox, mut questions) = mpsc::channel(OUTBOX);
        let (waiting, mut coming) = waiting(&[None]);
        let exchange = exchange(outbox, Arc::new(Mutex::new(waiting)));
        exchange.close().await;
        assert!(questions.recv().await.is_none());
        assert!(coming[0].try_recv().unwrap().unwrap_err().message().contains("is closed"));
        let error = exchange.ask(None, Duration::from_secs(5), |number| number).await;
        assert!(error.unwrap_err().message().contains("is closed"));
    }

    #[tokio::test]
    async fn whoever_waits_too_long_gives_the_place_up() {
        let (outbox, _questions) = mpsc::channel(OUTBOX);
        let (waiting, _) = waiting(&[]);
        let exchange = exchange(outbox, Arc::new(Mutex::new(waiting)));
        let error = exchange.ask(None, Duration::from_millis(1), |number| number).await;
        assert_eq!(error.unwrap_err().kind(), Kind::DeadlineExceeded);
        assert!(lock(&exchange.waiting).places.is_empty());
    }

    #[tokio::test]
    async fn whoever_asks_while_a_stream_ends_is_told_why() {
        let (outbox, questions) = mpsc::channel(OUTBOX);
        drop(questions); // the transport has let go of it, and whoever reads does not know yet
        let (waiting, _) = waiting(&[]);
        let waiting = Arc::new(Mutex::new(waiting));
        let exchange = exchange(outbox, waiting.clone());
        tokio::spawn(async move { lock(&waiting).end(&Error::invalid("no such agent")) });
        let error = exchange.ask(None, Duration::from_secs(5), |number| number).await;
        assert_eq!(error.unwrap_err().message(), "no such agent");
    }

    #[test]
    fn whoever_waits_when_a_stream_ends_is_told_why() {
        let (mut waiting, mut coming) = waiting(&[None]);
        waiting.end(&ended());
        assert_eq!(coming[0].try_recv().unwrap().unwrap_err().kind(), Kind::Unavailable);
    }
}
