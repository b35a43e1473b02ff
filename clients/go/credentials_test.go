package steward

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"

	authv1 "steward/clients/go/gen/steward/auth/v1"
)

// signedIn are credentials whose tokens last so long; each exchange takes a second, and ends with the
// error if there is one.
func signedIn(lasts time.Duration, failure *error) *credentials {
	made := 0
	pair := func() tokenPair {
		made++
		return &authv1.RefreshResponse{
			AccessToken: fmt.Sprint("access-", made), RefreshToken: fmt.Sprint("refresh-", made),
			ExpiresIn: int32(lasts.Seconds()),
		}
	}
	c := &credentials{exchange: func(context.Context, string) (tokenPair, error) {
		time.Sleep(time.Second)
		if *failure != nil {
			return nil, *failure
		}
		return pair(), nil
	}}
	c.keep(pair(), time.Now())
	return c
}

func shows(t *testing.T, c *credentials, forStream bool, want string) {
	t.Helper()
	if got := c.token(t.Context(), forStream); got != want {
		t.Errorf("it shows %q, not %q", got, want)
	}
}

func TestATokenIsRenewedShortlyBeforeItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := signedIn(time.Hour, new(error))
		time.Sleep(time.Hour - 31*time.Second)
		shows(t, c, false, "access-1")
		time.Sleep(time.Second)
		shows(t, c, false, "access-2")
		shows(t, c, false, "access-2")
	})
}

func TestAShortLivedTokenIsShownForHalfItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := signedIn(20*time.Second, new(error))
		time.Sleep(9 * time.Second)
		shows(t, c, false, "access-1")
		time.Sleep(time.Second)
		shows(t, c, false, "access-2")
	})
}

func TestAStreamBeginsWithAYoungToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := signedIn(time.Hour, new(error))
		time.Sleep(40 * time.Minute)
		shows(t, c, false, "access-1")
		shows(t, c, true, "access-2")
	})
}

func TestWhoeverNeedsATokenWaitsForTheSameExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := signedIn(time.Hour, new(error))
		var all sync.WaitGroup
		for range 10 {
			all.Go(func() {
				if !c.renew(t.Context(), "access-1") {
					t.Error("there is none to be had")
				}
			})
		}
		all.Wait()
		shows(t, c, false, "access-2")
	})
}

func TestAnExchangeGoesOnWhenItsCallerWaitsNoLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := signedIn(time.Hour, new(error))
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if c.renew(ctx, "access-1") {
			t.Error("the caller waited past its deadline")
		}
		time.Sleep(2 * time.Second)
		shows(t, c, false, "access-2")
	})
}

func TestASignInThatCannotBeRenewedIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failure := error(errorOf(refused(t, codes.Unauthenticated)))
		c := signedIn(time.Hour, &failure)
		if c.renew(t.Context(), "access-1") {
			t.Error("it was renewed")
		}
		shows(t, c, false, "")
	})
}

func TestATokenIsShownUntilItsEndWhileTheServerIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		failure := error(unavailable("away"))
		c := signedIn(time.Hour, &failure)
		time.Sleep(time.Hour - 10*time.Second)
		shows(t, c, false, "access-1")
		failure = nil
		shows(t, c, false, "access-2")
	})
}

func TestWhoeverSignsOutDuringAnExchangeStaysOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := signedIn(time.Hour, new(error))
		go c.renew(t.Context(), "access-1")
		synctest.Wait()
		c.forget()
		time.Sleep(2 * time.Second)
		shows(t, c, false, "")
	})
}

func TestATokenThatLastsIsNeverRenewed(t *testing.T) {
	c := &credentials{shown: shown{access: "key"}}
	shows(t, c, true, "key")
	if c.renew(t.Context(), "key") {
		t.Error("it was renewed")
	}
}
