package redial

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestDelaysGrowAndAreDrawnFromZero(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var attempts []time.Time
		Run(ctx, func(context.Context, func()) error {
			attempts = append(attempts, time.Now())
			if len(attempts) == 200 {
				cancel()
			}
			return errors.New("refused")
		}, func(error) {})
		bound, short, long := FirstDelay, 0, 0
		for i := 1; i < len(attempts); i++ {
			d := attempts[i].Sub(attempts[i-1])
			if d > bound+time.Nanosecond {
				t.Errorf("delay %d is %s, more than %s", i, d, bound)
			}
			if bound == MaxDelay && d < MaxDelay/4 {
				short++
			}
			if bound == MaxDelay && d > MaxDelay*3/4 {
				long++
			}
			bound = min(MaxDelay, 2*bound)
		}
		// Of 190 draws about 48 are in each outer quarter.
		if short < 20 || long < 20 {
			t.Errorf("%d short and %d long delays: not drawn from the whole range", short, long)
		}
	})
}

func TestDelayStartsAgainAfterAConnectionThatLasted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		var ended time.Time
		Run(ctx, func(_ context.Context, up func()) error {
			n++
			switch n {
			case 12: // the bound is 30 s by now
				up()
				time.Sleep(time.Minute)
				ended = time.Now()
			case 13:
				if d := time.Since(ended); d > FirstDelay+time.Nanosecond {
					t.Errorf("%s until the next attempt, want at most %s", d, FirstDelay)
				}
				cancel()
			default:
				up() // and down at once: that is no success
			}
			return errors.New("ended")
		}, func(error) {})
	})
}

func TestNextBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ago := func(d time.Duration) time.Time { return time.Now().Add(-d) }
		for _, test := range []struct {
			bound time.Duration
			since time.Time // when the connection worked; zero for never
			want  time.Duration
		}{
			{0, time.Time{}, FirstDelay},
			{0, ago(0), FirstDelay},
			{FirstDelay, time.Time{}, 2 * FirstDelay},
			{FirstDelay, ago(FirstDelay), 2 * FirstDelay},
			{FirstDelay, ago(FirstDelay + 1), FirstDelay},
			{20 * time.Second, time.Time{}, MaxDelay},
			{MaxDelay, ago(MaxDelay), MaxDelay},
			{MaxDelay, ago(time.Minute), FirstDelay},
		} {
			if got := nextBound(test.bound, test.since); got != test.want {
				t.Errorf("after %s and a connection since %s: %s, want %s", test.bound, time.Since(test.since), got, test.want)
			}
		}
	})
}

func TestRunEndsInTheMiddleOfADelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour+time.Nanosecond)
		defer cancel()
		begin := time.Now()
		told := 0
		Run(ctx, func(context.Context, func()) error { return errors.New("refused") }, func(error) { told++ })
		if d := time.Since(begin); d != time.Hour+time.Nanosecond {
			t.Errorf("ended after %s", d)
		}
		if told < 100 || told > 600 {
			t.Errorf("%d attempts in an hour", told)
		}
	})
}

func TestWatchdog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		w := NewWatchdog(cancel, 10*time.Second)
		time.Sleep(29 * time.Second)
		w.Reset()
		time.Sleep(29 * time.Second)
		w.Stop()
		time.Sleep(time.Hour)
		if ctx.Err() != nil {
			t.Fatal("ended although something was heard, or nobody listened")
		}
		w.Reset()
		time.Sleep(30*time.Second + time.Nanosecond)
		if !errors.Is(context.Cause(ctx), ErrSilent) {
			t.Errorf("cause %v", context.Cause(ctx))
		}
	})
}
