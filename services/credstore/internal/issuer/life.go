package issuer

import (
	"time"

	"github.com/credstore/credstore/pkg/credential"
)

const (
	// longest is as far as the end of a token is looked ahead: an end beyond is
	// passed on as it is.
	longest = 365 * 24 * time.Hour
	// spare is the most time that a token must have left to be handed out while a
	// new one is being made; a tenth of its life if that is less.
	spare = time.Minute
)

// life is when a token is to be replaced. Its times have no monotonic reading: a
// token ends by the clock on the wall, also while the machine sleeps.
type life struct {
	// refresh is when a new one is to be asked for, between two thirds and three
	// quarters of the token's life, so that those that began together do not go
	// together.
	refresh time.Time
	// wait is from when on it is handed out only if no new one can be had.
	wait time.Time
	end  time.Time
}

// lifeOf returns the life of a token that was asked for at start; ok is false if
// it does not end by itself.
func lifeOf(token credential.Token, start time.Time, random func() float64) (l life, ok bool) {
	end, ok := token.ExpireTime()
	if !ok {
		return life{}, false
	}
	return span(start, end, random), true
}

// span is the life of a token from its start to its end.
func span(start, end time.Time, random func() float64) life {
	start = start.Round(0)
	total := min(max(0, end.Sub(start)), longest)
	end = start.Add(total)
	return life{
		refresh: start.Add(total*2/3 + time.Duration(random()*float64(total/12))),
		wait:    end.Add(-min(spare, total/10)),
		end:     end,
	}
}

// backoff returns the pause after a failure, shortened at random to half at most:
// first after the first one, and twice as long after each further one, up to most.
func backoff(failures int, first, most time.Duration, random func() float64) time.Duration {
	pause := first
	for range min(failures-1, 32) {
		pause = min(2*pause, most)
	}
	return pause/2 + time.Duration(random()*float64(pause/2))
}
