package dev.steward.client;

import java.io.Serializable;

/**
 * Something wrong in a text, such as a playbook's.
 *
 * @param line counted from 1, as is the column; in characters
 * @param path of the text, where it has a place
 */
public record TextError(int line, int column, String path, String message)
    implements Serializable {}
