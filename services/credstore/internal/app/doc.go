// Package app owns the wiring of the credstore server: it alone names concrete
// backends and providers, reads top to bottom, and holds no rule of the domain.
package app
