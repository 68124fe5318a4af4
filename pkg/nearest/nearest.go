// Package nearest finds the word that somebody meant who wrote another one.
package nearest

import "strings"

const (
	// mostWrong is how many letters of a word may be wrong.
	mostWrong = 2
	// longest bounds the work: what is longer is no misspelt name.
	longest = 64
)

// Word returns the one of some words that was probably meant, "" when none is
// near: it is written with other capitals, or up to two letters are wrong, missing,
// too many or swapped with their neighbours.
func Word(word string, among []string) string {
	if len(word) > longest {
		return ""
	}
	best, least := "", mostWrong+1
	for _, other := range among {
		if d := distance(strings.ToLower(word), strings.ToLower(other)); d < least && d < len(other) {
			best, least = other, d
		}
	}
	return best
}

// distance counts the insertions, deletions, replacements and swaps of neighbours
// between two short words, in bytes (the restricted Damerau-Levenshtein distance).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
