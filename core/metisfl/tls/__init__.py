"""A federation's certificates: who they name, how they are made, when they are renewed. Pure, without I/O.

A federation has a *root*. It signs the controller's server certificate and the *client issuer*, which may sign client
certificates only; the controller has that one, the root's key stays with whoever set the federation up. The client
issuer signs two kinds of certificates: *bootstrap* certificates, one a learner group, that the Enroll call alone
accepts, and *learner* certificates, one a learner, that Enroll answers with.
"""
