//! A stream in both directions: messages under way, and the answers that belong to them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{mpsc, oneshot};
use tonic::{Code, Streaming};

use crate::{Error, Kind, Result};

/// Messages that may wait to be sent; then whoever says more waits.
pub(crate) const OUTBOX: usize = 8;

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
    outbox: mpsc::Sender<Q>,
    waiting: Arc<Mutex<Waiting<A>>>,
}

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

impl<Q, A: Clone + Send + 'static> Exchange<Q, A> {
    /// Reads answers until there are no more. `sort` says whose each of them is, or keeps it; `cut`
    /// makes of the end, or of what it ended by, what those who still wait are told.
    pub fn new<R: Send + 'static>(
        outbox: mpsc::Sender<Q>,
        answers: Streaming<R>,
        sort: impl FnMut(R) -> Option<Incoming<A>> + Send + 'static,
        cut: fn(Error) -> Error,
    ) -> Self {
        let waiting = Waiting { last: 0, places: BTreeMap::new(), cut: None };
        let waiting = Arc::new(Mutex::new(waiting));
        tokio::spawn(read(answers, sort, cut, waiting.clone()));
        Self { outbox, waiting }
    }

    /// Sends a message, made with its number, and waits for its answer.
    pub async fn ask(&self, group: Option<String>, message: impl FnOnce(u64) -> Q) -> Result<A> {
        let room = self.outbox.reserve().await;
        let coming = {
            let mut waiting = lock(&self.waiting);
            let room = match (room, &waiting.cut) {
                (Ok(room), None) => room,
                (_, cut) => return Err(cut.clone().unwrap_or_else(ended)),
            };
            let (answer, coming) = oneshot::channel();
            waiting.last += 1;
            let number = waiting.last;
            waiting.places.insert(number, Place { group, answer });
            room.send(message(number)); // under the lock: numbers go out in their order
            coming
        };
        coming.await.unwrap_or_else(|_| Err(ended()))
    }
}

async fn read<R, A: Clone>(
    mut answers: Streaming<R>,
    mut sort: impl FnMut(R) -> Option<Incoming<A>>,
    cut: fn(Error) -> Error,
    waiting: Arc<Mutex<Waiting<A>>>,
) {
    let end = loop {
        match answers.message().await {
            Ok(Some(message)) => {
                if let Some(incoming) = sort(message) {
                    lock(&waiting).tell(&incoming);
                }
            }
            Ok(None) => break ended(),
            Err(status) => break status.into(),
        }
    };
    lock(&waiting).end(&cut(end));
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
        self.cut = Some(cut.clone());
        for place in std::mem::take(&mut self.places).into_values() {
            let _ = place.answer.send(Err(cut.clone()));
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().expect("nothing panics while it holds this")
}

fn ended() -> Error {
    Error::local(Kind::Unavailable, Code::Unavailable, "the stream has ended")
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

    #[test]
    fn whoever_waits_when_a_stream_ends_is_told_why() {
        let (mut waiting, mut coming) = waiting(&[None]);
        waiting.end(&ended());
        assert_eq!(coming[0].try_recv().unwrap().unwrap_err().kind(), Kind::Unavailable);
    }
}
