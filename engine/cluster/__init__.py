"""Work that is many independent pieces: by processes of this machine, or on a Ray cluster, behind one interface (`pool`)."""
