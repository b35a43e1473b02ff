package steward

import (
	"context"
	"errors"
	"sync"
	"time"
)

// renewalMargin: a token with less time left may have ended when a call arrives.
const renewalMargin = 30 * time.Second

// tokenPair is what a sign-in and its renewal are answered.
type tokenPair interface {
	GetAccessToken() string
	GetRefreshToken() string
	GetExpiresIn() int32
}

// credentials are what calls show: a token that lasts, or a sign-in that is renewed.
type credentials struct {
	// exchange gets a new pair for a refresh token, which is spent by it.
	exchange func(ctx context.Context, refreshToken string) (tokenPair, error)

	mutex sync.Mutex
	shown shown
	// renewal is under way; nil: none is. Whoever needs one meanwhile waits for the same.
	renewal *renewal
}

type shown struct {
	access, refresh string
	asked           time.Time
	lasts           time.Duration
}

type renewal struct {
	done chan struct{}
	ok   bool
}

// left is how long before its end the token is renewed: never more than half its time, or a
// short-lived one would be renewed by every call. A stream ends with the token it began with, so it
// begins with a young one.
func (s shown) left(forStream bool) time.Duration {
	if forStream {
		return s.lasts / 2
	}
	return min(renewalMargin, s.lasts/2)
}

func (s shown) isEnding(now time.Time, forStream bool) bool {
	return s.refresh != "" && now.Sub(s.asked) >= s.lasts-s.left(forStream)
}

// keep shows this pair from now on. Its time is counted from before it was asked for.
func (c *credentials) keep(pair tokenPair, asked time.Time) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.shown = shownOf(pair, asked)
}

func (c *credentials) forget() {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.shown = shown{}
}

// token is what to show now; empty: nothing.
func (c *credentials) token(ctx context.Context, forStream bool) string {
	if now := c.current(); now.isEnding(time.Now(), forStream) {
		// Where that fails, the one there is may still be good; else the call will tell.
		c.renew(ctx, now.access)
	}
	return c.current().access
}

// renew gets another token than the one that was shown; false if there is none to be had.
func (c *credentials) renew(ctx context.Context, used string) bool {
	underWay := c.beginRenewal(ctx, used)
	select {
	case <-underWay.done:
		return underWay.ok
	case <-ctx.Done():
		return false
	}
}

func (c *credentials) beginRenewal(ctx context.Context, used string) *renewal {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if c.shown.access != used || c.shown.refresh == "" {
		isAnother := c.shown.access != used && c.shown.access != ""
		return renewed(isAnother) // by another call, if at all
	}
	if c.renewal == nil {
		c.renewal = &renewal{done: make(chan struct{})}
		// The token is spent by it: it goes on when whoever needed it first waits no longer.
		go c.finish(context.WithoutCancel(ctx), c.renewal, c.shown)
	}
	return c.renewal
}

func (c *credentials) finish(ctx context.Context, underWay *renewal, spent shown) {
	asked := time.Now()
	pair, err := c.exchange(ctx, spent.refresh)
	c.mutex.Lock()
	defer c.mutex.Unlock()
	c.renewal, underWay.ok = nil, err == nil
	if c.shown.access == spent.access { // else somebody signed in or out meanwhile
		if err == nil {
			c.shown = shownOf(pair, asked)
		} else if errors.Is(err, ErrUnauthorized) {
			c.shown = shown{}
		}
	}
	close(underWay.done)
}

func (c *credentials) current() shown {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return c.shown
}

func shownOf(pair tokenPair, asked time.Time) shown {
	return shown{
		access:  pair.GetAccessToken(),
		refresh: pair.GetRefreshToken(),
		asked:   asked,
		lasts:   time.Duration(pair.GetExpiresIn()) * time.Second,
	}
}

func renewed(ok bool) *renewal {
	done := make(chan struct{})
	close(done)
	return &renewal{done: done, ok: ok}
}
