package steward

import (
	"context"

	budgetv1 "steward/clients/go/gen/steward/budget/v1"
)

// Session is a runtime's stream to the ledger: leases are taken, reported on, grown and given back
// over it, and what is wanted of the runtime comes down it. A refused message leaves it open.
//
// Many goroutines may share it. Where it is cut, leases stay open for as long as they last: open
// another session and Resume them.
type Session struct {
	*exchange[budgetv1.SessionRequest, budgetv1.SessionResponse]

	controls chan *budgetv1.Control
}

// Session opens a runtime's session, by an agent's IC token. It lasts until the context ends or it is
// closed.
func (c *Client) Session(ctx context.Context) (*Session, error) {
	exchange, err := begin(ctx, c.timeout, sessionProtocol, budgetv1.NewBudgetServiceClient(c).Session)
	if err != nil {
		return nil, err
	}
	session := &Session{exchange: exchange, controls: make(chan *budgetv1.Control)}
	coming := make(chan *budgetv1.Control)
	go session.queue(coming)
	session.start(func(message *budgetv1.SessionResponse) {
		if control := message.GetControl(); control != nil {
			select {
			case coming <- control:
			case <-session.closing.Done():
			}
		}
	})
	return session, nil
}

// Controls is what the server wants of the runtime, in its order: to stop, that a lease ended, that
// there is more or less to borrow. It is closed at the session's end; Err tells why that came.
func (s *Session) Controls() <-chan *budgetv1.Control { return s.controls }

// Handshake takes a lease.
func (s *Session) Handshake(ctx context.Context, request *budgetv1.HandshakeRequest) (*budgetv1.HandshakeResponse, error) {
	message := &budgetv1.SessionRequest_Handshake{Handshake: request}
	return answered(ctx, s.Ask, &budgetv1.SessionRequest{Message: message}, (*budgetv1.SessionResponse).GetHandshake)
}

// Report books what calls used. Usages that were refused are in the answer.
func (s *Session) Report(ctx context.Context, leaseID string, usages ...*budgetv1.Usage) (*budgetv1.ReportAck, error) {
	batch := &budgetv1.ReportBatch{LeaseId: leaseID, Usages: usages}
	message := &budgetv1.SessionRequest_ReportBatch{ReportBatch: batch}
	return answered(ctx, s.Ask, &budgetv1.SessionRequest{Message: message}, (*budgetv1.SessionResponse).GetReportAck)
}

// Refresh grows a lease, and moves its expiry. A denial is an answer, not an error.
func (s *Session) Refresh(ctx context.Context, request *budgetv1.RefreshRequest) (*budgetv1.RefreshResponse, error) {
	message := &budgetv1.SessionRequest_Refresh{Refresh: request}
	return answered(ctx, s.Ask, &budgetv1.SessionRequest{Message: message}, (*budgetv1.SessionResponse).GetRefresh)
}

// Return gives back what is left of a lease.
func (s *Session) Return(ctx context.Context, request *budgetv1.ReturnRequest) (*budgetv1.ReturnResponse, error) {
	message := &budgetv1.SessionRequest_ReturnLease{ReturnLease: request}
	return answered(ctx, s.Ask, &budgetv1.SessionRequest{Message: message}, (*budgetv1.SessionResponse).GetReturnLease)
}

// Resume goes on with a lease that was taken over a session that is cut.
func (s *Session) Resume(ctx context.Context, leaseID string) (*budgetv1.LeaseResumed, error) {
	message := &budgetv1.SessionRequest_ResumeLease{ResumeLease: &budgetv1.ResumeLease{LeaseId: leaseID}}
	return answered(ctx, s.Ask, &budgetv1.SessionRequest{Message: message}, (*budgetv1.SessionResponse).GetLeaseResumed)
}

// Beat proves that the runtime is alive; a lease of which nobody has a sign of life runs out.
func (s *Session) Beat(ctx context.Context) error {
	message := &budgetv1.SessionRequest_Heartbeat{Heartbeat: &budgetv1.SessionHeartbeat{}}
	_, err := answered(ctx, s.Ask, &budgetv1.SessionRequest{Message: message}, (*budgetv1.SessionResponse).GetHeartbeat)
	return err
}

// queue keeps what comes until somebody reads it: whoever does not must not hold up the answers.
func (s *Session) queue(coming <-chan *budgetv1.Control) {
	defer close(s.controls)
	var waiting []*budgetv1.Control
	ended := s.ended
	for ended != nil || len(waiting) > 0 {
		var next *budgetv1.Control
		var out chan<- *budgetv1.Control
		if len(waiting) > 0 {
			next, out = waiting[0], s.controls
		}
		select {
		case control := <-coming:
			waiting = append(waiting, control)
		case out <- next:
			waiting = waiting[1:]
		case <-ended:
			ended = nil
		case <-s.closing.Done():
			return
		}
	}
}

var sessionProtocol = protocol[budgetv1.SessionRequest, budgetv1.SessionResponse]{
	numbered: func(request *budgetv1.SessionRequest, number int64) *budgetv1.SessionRequest {
		return &budgetv1.SessionRequest{MessageId: number, Message: request.GetMessage()}
	},
	numberOf:  (*budgetv1.SessionResponse).GetInReplyTo,
	refusalOf: (*budgetv1.SessionResponse).GetRefusal,
	// Batches of one lease that were booked together are answered once, with the last one's number.
	covers: func(answer *budgetv1.SessionResponse, request *budgetv1.SessionRequest) bool {
		ack, batch := answer.GetReportAck(), request.GetReportBatch()
		return ack != nil && batch != nil && ack.GetLeaseId() == batch.GetLeaseId()
	},
	cut: func(why *Error, _ bool) *Error { return why },
}
