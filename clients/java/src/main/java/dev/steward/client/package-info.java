/** Calls a Steward server. Start reading at {@link dev.steward.client.Steward}. */
package dev.steward.client;
